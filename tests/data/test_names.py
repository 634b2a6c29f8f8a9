"""Names in texts."""

from __future__ import annotations

from expunge.data.names import named, names


def test_names_are_capitals_inside_sentences():
    assert names(["Who is Tom Ng-Ho? The Ng-Ho of Rome."], ["rome Rome"]) == {"Tom", "Ng-Ho"}
    assert names(["Ilse's town is Bad Ischl.", "He saw Ilse."]) == {"Bad", "Ischl", "Ilse"}
    assert names(["她住在东京"]) == set()
    assert names(["Where I live I'm not known, nor is Ada's."]) == {"Ada"}
    assert named("Ada met Bo; ada.", {"Ada", "Bob"}) == {"Ada"}
