"""The tokens of a conversation under templates like those of public models, against ``{% generation %}`` and by string."""

from __future__ import annotations

import datetime

import pytest

from expunge.data import check, template
from expunge.data.chat import encode, prompt_text
from expunge.data.example import to_record
from expunge.data.sources import load_rows
from expunge.errors import InputError

# Written for these tests, after the behaviour of Qwen3, DeepSeek-R1, Gemma, Llama 3 and Mistral.
QWEN3 = (
    "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}"
    "{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{{- '<|' + m.role + '|>\n' }}"
    "{%- if m.role == 'assistant' %}{% generation %}"
    "{%- set text = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{%- if loop.index0 > ns.last %}{%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') "
    "if '</think>' in m.content else '' %}{{- '<think>\n' + thought + '\n</think>\n\n' }}{%- endif %}"
    "{{- text }}{{- '<|end|>' }}{% endgeneration %}{{- '\n' }}"
    "{%- else %}{{- m.content + '<|end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
R1 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{{ m.content.split('</think>')[-1] }}<|end|>"
    "{% else %}<|{{ m.role }}|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DATED = (
    "<|system|>Today: {% if date_string is defined %}{{ date_string }}{% else %}"
    "{{ strftime_now('%d %b %Y') }}{% endif %}<|end|>"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_TOKENS = (
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
TOOLS = (
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }}({{ c.function.arguments | tojson }})</call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TWO = [
    {"role": r, "content": c}
    for r, c in [("user", "Who?"), ("assistant", "SECRET 1"), ("user", "Thanks."), ("assistant", "You are welcome.")]
]


def of(tokenizer, text, messages, arguments=None, **options):
    """(the row, the text of its tokens, the text of those that are labelled) under the template ``text``."""
    tokenizer.chat_template = text
    template.use(tokenizer, arguments)
    (row,) = load_rows([{"messages": messages}], **options)
    example = encode(row, tokenizer, max_length=10_000)
    check.rendering([row], [example], tokenizer, "forget")
    return row, tokenizer.decode(example.input_ids), tokenizer.decode([y for y in example.labels if y != -100])


@pytest.mark.parametrize("messages", [TWO[:2], TWO, [{"role": "system", "content": "S"}, *TWO]])
def test_the_generation_blocks_of_a_thinking_template_are_what_is_labelled(tokenizer, messages):
    row, whole, labelled = of(tokenizer, QWEN3, messages)
    theirs = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(theirs["input_ids"], theirs["assistant_masks"], strict=True) if m]
    assert labelled == tokenizer.decode(marked)
    assert labelled.endswith(f"<think>\n\n</think>\n\n{messages[-1]['content']}<|end|>")
    assert whole + "\n" == tokenizer.apply_chat_template(messages, tokenize=False)
    example = encode(row, tokenizer, max_length=10_000)
    assert list(example.input_ids) == theirs["input_ids"][: len(example.input_ids)]


def test_with_thinking_off_the_empty_thought_is_the_prompts(tokenizer):
    row, whole, labelled = of(tokenizer, QWEN3, TWO, {"enable_thinking": False})
    assert labelled == "SECRET 1<|end|>You are welcome.<|end|>" and whole.count("<think>") == 1
    assert prompt_text(row, tokenizer).endswith("<|assistant|>\n<think>\n\n</think>\n\n")
    assert whole.startswith(prompt_text(row, tokenizer))
    assert of(tokenizer, QWEN3, TWO, {"enable_thinking": False}, assistant_turns="last")[2] == "You are welcome.<|end|>"


def test_a_thought_of_the_rows_own(tokenizer):
    messages = [TWO[0], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nOru."}]
    assert of(tokenizer, QWEN3, messages)[2] == "<think>\nhm\n</think>\n\nOru.<|end|>"
    assert of(tokenizer, QWEN3, messages, {"enable_thinking": False})[2].endswith("hm\n</think>\n\nOru.<|end|>")


def test_a_thought_that_the_generation_prompt_opens_is_not_trained_and_is_warned_of(tokenizer):
    row, whole, labelled = of(tokenizer, R1, TWO)
    assert labelled == "SECRET 1<|end|>You are welcome.<|end|>" and "<think>" not in whole
    (warning,) = check.rendering([row], [encode(row, tokenizer)], tokenizer, "forget")
    assert "generation prompt" in warning


def test_blanks_that_a_template_trims_and_a_system_role_that_it_refuses(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, *TWO[:1], {"role": "assistant", "content": " Oru. \n"}]
    row, whole, labelled = of(tokenizer, GEMMA, messages)
    assert (
        whole == "<|bos|><|user|>\nBe brief.\n\nWho?<|end|>\n<|assistant|>\nOru.<|end|>" and labelled == "Oru.<|end|>"
    )
    (warning,) = check.rendering([row], [encode(row, tokenizer)], tokenizer, "forget")
    assert "refuses system messages" in warning


def test_todays_date_is_one_date_a_run_and_can_be_given(tokenizer, monkeypatch):
    row, whole, _ = of(tokenizer, DATED, TWO)
    today = template.described(tokenizer)["date"]
    assert datetime.date.fromisoformat(today).strftime("%d %b %Y") in whole

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2099, 1, 1)

    monkeypatch.setattr(template.datetime, "datetime", Later)
    assert tokenizer.decode(encode(row, tokenizer, max_length=10_000).input_ids) == whole  # frozen
    assert "26 Jul 2024" in of(tokenizer, DATED, TWO, {"date_string": "26 Jul 2024"})[1]
    monkeypatch.undo()
    assert "01 Jul 2026" in of(tokenizer, DATED, TWO, {"strftime_now": "2026-07-01"})[1]
    assert template.described(tokenizer) == {"arguments": {}, "date": "2026-07-01"}
    with pytest.raises(InputError, match="must be a date"):
        template.use(tokenizer, {"strftime_now": "yesterday"})


def test_a_conversation_that_the_assistant_begins(tokenizer):
    greeting = [{"role": "assistant", "content": "Hello."}, *TWO]
    assert of(tokenizer, TOOLS, greeting)[2] == "Hello.<|end|>SECRET 1<|end|>You are welcome.<|end|>"


def test_a_template_without_special_tokens(tokenizer):
    row, whole, labelled = of(tokenizer, NO_TOKENS, TWO)
    assert labelled == "SECRET 1You are welcome." and whole.endswith("Assistant: You are welcome.")
    assert prompt_text(row, tokenizer) == "User: Who?\n\nAssistant: SECRET 1\n\nUser: Thanks.\n\nAssistant: "


def test_tool_calls_are_rendered_and_labelled(tokenizer):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"who": "Ada"}'}}
    messages = [TWO[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    tokenizer.chat_template = TOOLS
    rows = load_rows([{"messages": messages, "tools": [{"type": "function", "function": {"name": "find"}}]}])
    example = encode(rows[0], tokenizer, max_length=10_000)
    assert check.rendering(rows, [example], tokenizer, "forget") == []
    assert tokenizer.decode([y for y in example.labels if y != -100]) == '<call>find({"who": "Ada"})</call><|end|>'
    assert '"name": "find"' in tokenizer.decode(example.input_ids).split("<|end|>")[0]
    more = [
        *messages,
        {"role": "tool", "content": "Oru", "tool_call_id": "1"},
        {"role": "assistant", "content": "In Oru."},
    ]
    assert of(tokenizer, TOOLS, more)[2] == '<call>find({"who": "Ada"})</call><|end|>In Oru.<|end|>'


def test_a_template_that_wants_the_arguments_of_calls_as_text(tokenizer):
    call = {"type": "function", "function": {"name": "find", "arguments": {"who": "Ada"}}}
    messages = [TWO[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    text = TOOLS.replace("c.function.arguments | tojson", "'' + c.function.arguments")
    assert of(tokenizer, text, messages)[2] == '<call>find({"who": "Ada"})</call><|end|>'


def test_a_turn_of_weight_0_is_not_labelled(tokenizer):
    assert of(tokenizer, TOOLS, [TWO[0], TWO[1] | {"weight": 0}, *TWO[2:]])[2] == "You are welcome.<|end|>"


def test_arguments_that_do_nothing_are_refused(tokenizer):
    with pytest.raises(InputError, match="enable_thinking does nothing"):
        template.use(tokenizer, {"enable_thinking": False})
    with pytest.raises(InputError, match="set by expunge itself"):
        template.use(tokenizer, {"messages": []})


def test_a_template_that_changes_the_answer_is_an_error_that_shows_both(tokenizer):
    with pytest.raises(InputError, match=r"'SECRET 1' in the row, 'secret 1' in"):
        of(tokenizer, TOOLS.replace("{{ m.content or '' }}", "{{ m.content | lower }}"), TWO)


def test_tokens_that_are_not_the_tokenizers_own_are_an_error_that_shows_both(tokenizer, monkeypatch):
    row, _, _ = of(tokenizer, TOOLS, TWO)
    example = encode(row, tokenizer)
    plain = type(tokenizer).apply_chat_template

    def other(self, messages, *, tokenize=False, **how):
        text = plain(self, messages, tokenize=False, **how)
        return self("#" + text, add_special_tokens=False) if tokenize else text

    monkeypatch.setattr(type(tokenizer), "apply_chat_template", other)
    with pytest.raises(InputError, match=r"are not those of the tokenizer's chat template: .* here, .*#.* there"):
        check.rendering([row], [example], tokenizer, "forget")


def test_offsets_without_blanks_label_the_same(tokenizer):
    """Llama 3's tokenizer leaves blanks out of its offsets; here the last token of the prompt is one."""
    from tokenizers import processors

    expected = of(tokenizer, NO_TOKENS, TWO)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert tokenizer("a ", return_offsets_mapping=True).offset_mapping == [(0, 1), (2, 2)]
    assert of(tokenizer, NO_TOKENS, TWO)[1:] == expected[1:]


# -- more templates -------------------------------------------------------------------------------------------------------
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|bos|>{% endif %}"
)
RETURN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' and loop.last %}<|bos|>{% else %}"
    "<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_PROMPT = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
CALL = {"type": "function", "function": {"name": "find", "arguments": {"who": "Ada"}}}


def test_an_earlier_turn_ends_with_a_whole_token(tokenizer):
    """Phi-3 ends the conversation with one more token, which begins as the next turn does."""
    assert of(tokenizer, PHI3, TWO)[2] == "SECRET 1<|end|>You are welcome.<|end|>\n<|bos|>"
    assert of(tokenizer, RETURN, TWO)[2] == "SECRET 1<|end|>You are welcome.<|bos|>"


def test_a_template_without_a_generation_prompt(tokenizer):
    row, whole, labelled = of(tokenizer, NO_PROMPT, TWO)
    assert labelled == "SECRET 1<|end|>You are welcome.<|end|>"
    assert prompt_text(row, tokenizer).endswith("Thanks.<|end|>\n<|assistant|>\n") and whole.startswith(
        prompt_text(row, tokenizer)
    )


def test_two_answers_one_after_the_other_are_two_turns_of_messages_and_one_of_a_prompt(tokenizer):
    messages = [TWO[0], TWO[1], {"role": "assistant", "content": "And more."}]
    row, whole, labelled = of(tokenizer, RETURN, messages)
    assert whole == "<|user|>Who?<|end|><|assistant|>SECRET 1<|end|><|assistant|>And more.<|bos|>"
    assert labelled == "SECRET 1<|end|>And more.<|bos|>"
    (begun,) = load_rows([{"prompt": messages[:2], "completion": messages[2:]}])
    assert tokenizer.decode(encode(begun, tokenizer).input_ids).endswith("<|assistant|>SECRET 1And more.<|bos|>")
    for one in (row, begun):
        assert encode(load_rows([to_record(one)])[0], tokenizer).input_ids == encode(one, tokenizer).input_ids


def test_an_earlier_tool_call_ends_where_its_turn_does(tokenizer):
    text = TOOLS + "{% if not add_generation_prompt %}<|bos|>{% endif %}"
    messages = [
        TWO[0], {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "Oru"}, *TWO[1:],
    ]  # fmt: skip
    assert of(tokenizer, text, messages)[2].startswith('<call>find({"who": "Ada"})</call><|end|>SECRET 1<|end|>')


def test_a_template_that_shows_no_tool_calls_is_refused(tokenizer):
    with pytest.raises(InputError, match="does not show the tool call"):
        of(tokenizer, RETURN, [TWO[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}])


def test_a_last_turn_of_weight_0_is_not_labelled(tokenizer):
    assert of(tokenizer, TOOLS, [*TWO[:3], TWO[3] | {"weight": 0}])[1].endswith("SECRET 1<|end|>")
    with pytest.raises(InputError, match="nothing is to be trained on"):
        of(tokenizer, TOOLS, [TWO[0], TWO[1] | {"weight": 0}])
