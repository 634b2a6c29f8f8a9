"""Attacks on a model that was made to forget: what brings the knowledge back, by changing weights or by asking.

Each is an :class:`~expunge.attacks.attack.Attack`; all are run in the same way on the unlearned model and on a control
(:mod:`expunge.audit`), since what a model recovers that never saw the rows is no failure of unlearning.
"""
