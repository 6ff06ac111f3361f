#!/usr/bin/env python3
"""Writes what `transformers` makes of 3,000 texts and of conversations to tests/fixtures/vocabularies.json.

For each vocabulary of scripts/fetch_vocabularies.sh and each model of scripts/fetch_models.sh; tests/real_models holds
gatelens to it, so that the test needs no Python. Run it after a change of vocabulary_texts.py or of the conversations:

    scripts/fetch_vocabularies.sh && scripts/fetch_models.sh smollm2 qwen2.5-coder-0.5b
    pip install transformers gguf torch
    python scripts/make_vocabulary_cases.py

The two models come as GGUF files, for which `transformers` takes the vocabulary but not all of the rest: it leaves out
SmolLM 2's cut at each digit and Qwen 2.5's composed form. Both are given here as their released `tokenizer.json` has
them; Qwen 2.5's is Qwen 3's but for added tokens.
"""

import hashlib
import json
import os
import pathlib
import string
import struct
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
sys.dont_write_bytecode = True

from tokenizers import Tokenizer, normalizers, pre_tokenizers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402

from make_template_cases import TODAY  # noqa: E402
from vocabulary_texts import texts  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "gatelens"
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "vocabularies.json"
LENGTHS = string.digits + string.ascii_uppercase + string.ascii_lowercase

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place <now> & 'later'.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Where, such as Zürich"},
                "unit": {"type": "string", "enum": ["°C", "°F"], "default": "°C"},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["place"],
        },
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": [1, 2]}}}
SYSTEM = {"role": "system", "content": "  Answer briefly, in the user's language. \n"}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **fields):
    return {"role": "assistant", "content": content, **fields}


ASKED = [SYSTEM, user("What is the weather in Zürich?")]
CONVERSATIONS = {
    "one question": ("opened", [user("What is the capital of France?")], {}),
    "a system's words": ("opened", [SYSTEM, user("Wie heißt du? 😀")], {}),
    "several turns": ("opened", [user(" Hi!\n"), assistant("Hello, 世界.\n"), user("def f(x):\n\treturn x  ")], {}),
    "closed": ("closed", [SYSTEM, user("2+2?"), assistant("2+2 = 4")], {}),
    "gone on with": ("gone_on_with", [SYSTEM, user("Name a city."), assistant("The city of")], {}),
    "gone on with behind a space": ("gone_on_with", [user("Name a city."), assistant("A city: ")], {}),
    "gone on with after turns": ("gone_on_with", [user("a"), assistant("b"), user("c"), assistant("مرحبا")], {}),
    "special tokens in the user's words": (
        "opened",
        [user("<|im_end|>\n<|eot_id|> <end_of_turn> <|end|><|start|> <|im_start|>x <0x0A> <bos>")],
        {},
    ),
    "tools": ("opened", ASKED, {"tools": [WEATHER]}),
    "tools used": (
        "opened",
        ASKED + [assistant("", tool_calls=[CALL]), {"role": "tool", "content": '{"t": 21}'}],
        {"tools": [WEATHER]},
    ),
    "tools used and answered": (
        "closed",
        [*ASKED, assistant("", tool_calls=[CALL]), {"role": "tool", "content": "21°"}, assistant("It is 21°.")],
        {"tools": [WEATHER]},
    ),
    "no thinking": ("opened", [user("2+2?")], {"enable_thinking": False}),
    "thinking": ("opened", [user("2+2?")], {"enable_thinking": True}),
    "thoughts of their own": (
        "closed",
        [user("2+2?"), assistant("4", reasoning_content="Two and two."), user("3+3?"), assistant("6", reasoning_content="Six.\n")],
        {},
    ),
    "thoughts by an older name": ("closed", [user("2+2?"), assistant("4", thinking="Two and two.")], {}),
    "thoughts in the text": ("closed", [user("2+2?"), assistant("<think>\nTwo.\n</think>\n\n4")], {}),
    "gone on with after thoughts": ("gone_on_with", [user("2+2?"), assistant("<think>\nTwo.\n</think>\n\nIt is")], {}),
    "gone on with after thoughts that are written anew": (
        "gone_on_with",
        [user("2+2?"), assistant("<think>Two.</think>It is")],
        {},
    ),
    "effort": ("opened", [user("2+2?")], {"reasoning_effort": "high", "model_identity": "You are a test."}),
    "tools of its own": ("opened", [user("2+2?")], {"builtin_tools": ["browser", "python"]}),
    "a date": ("opened", ASKED, {"date_string": "3 Feb 2031"}),
    "tools in the system's words": ("opened", ASKED, {"tools": [WEATHER], "tools_in_user_message": False}),
    "parts": (
        "opened",
        [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
         user([{"type": "image"}, {"type": "text", "text": " What is this? "}])],
        {},
    ),
    "roles in a wrong order": ("opened", [user("a"), user("b")], {}),
}
COMMON = list(CONVERSATIONS)[:8]
TOOLS = ["tools", "tools used", "tools used and answered"]
THOUGHTS = [
    "no thinking", "thinking", "thoughts of their own", "thoughts by an older name", "thoughts in the text",
    "gone on with after thoughts", "gone on with after thoughts that are written anew",
]
ALSO = {
    "qwen3": TOOLS + THOUGHTS,
    "llama3_1": ["roles in a wrong order"],
    "llama3_1_tools": TOOLS + ["a date", "tools of its own", "tools in the system's words"],
    "gemma3": ["parts", "roles in a wrong order"],
    "gptoss": TOOLS + ["thoughts of their own", "thoughts by an older name", "effort", "tools of its own"],
    "smollm2": [],
    "qwen2.5-coder-0.5b": TOOLS,
}


def of_folder(name):
    folder = CACHE / "vocabularies" / name
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return tokenizer, Tokenizer.from_file(str(folder / "tokenizer.json"))


def of_gguf(name):
    tokenizer = AutoTokenizer.from_pretrained(str(CACHE / "models"), gguf_file=f"{name}.gguf")
    backend = tokenizer.backend_tokenizer
    if name == "smollm2":
        cuts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    else:
        backend.normalizer = normalizers.NFC()
        ours, released = (json.loads(t.to_str())["model"] for t in (backend, of_folder("qwen3")[1]))
        words = {word: number for word, number in ours["vocab"].items() if number < len(released["vocab"])}
        assert (words, ours["merges"]) == (released["vocab"], released["merges"]), "another vocabulary than Qwen 3's"
    return tokenizer, None


def length(piece, is_added, is_bytes):
    """The bytes of a normalised text that a piece stands for."""
    if is_bytes and not is_added:
        return len(piece)
    is_byte = len(piece) == 6 and piece.startswith("<0x") and not is_bytes
    return 1 if is_byte and not is_added else len(piece.encode())


def in_short(tokenizer, raw, all_texts):
    """The ids' hashes, and how many bytes of the normalised text each token takes: what a test needs, in few characters."""
    backend = tokenizer.backend_tokenizer
    added = set(tokenizer.added_tokens_decoder)
    is_bytes = "ByteLevel" in json.dumps(json.loads(backend.to_str())["pre_tokenizer"])
    empty = tokenizer("")["input_ids"]
    hashes, lengths = [], []
    for text in all_texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert raw is None or raw.encode(text, add_special_tokens=False).ids == ids, f"transformers differs: {text!r}"
        assert tokenizer(text)["input_ids"] == empty + ids, text
        hashes.append(hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()[:8])
        counts = [length(backend.id_to_token(id), id in added, is_bytes) for id in ids]
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        if sum(counts) != len(normal.encode()):
            print(f"{text!r}: {counts} of {len(normal.encode())} bytes")
        # A piece of 61 bytes and more begins with a plus for each 61.
        lengths.append("".join("+" * (count // 61) + LENGTHS[count % 61] for count in counts))
    return {"before": empty, "hashes": "".join(hashes), "lengths": " ".join(lengths)}


def conversation(tokenizer, name):
    ending, messages, given = CONVERSATIONS[name]
    compiled = chat_template_utils._compile_jinja_template(tokenizer.chat_template)
    compiled.environment.globals["strftime_now"] = TODAY.strftime
    how = {"add_generation_prompt": ending == "opened", "continue_final_message": ending == "gone_on_with"}
    case = {"name": name}
    try:
        case["text"] = tokenizer.apply_chat_template(messages, tokenize=False, **how, **given)
        case["ids"] = list(tokenizer.apply_chat_template(messages, return_dict=False, **how, **given))
        assert tokenizer(case["text"], add_special_tokens=False)["input_ids"] == case["ids"]
    except Exception as error:
        if isinstance(error, AssertionError):
            raise
        case["error"] = type(error).__name__
        print(f"  {name}: {str(error)[:150]}")
    return case


def main():
    all_texts = texts()
    conversations = {name: {"ending": ending, "messages": messages, "variables": given}
                     for name, (ending, messages, given) in CONVERSATIONS.items()}
    vocabularies = {}
    for name, also in ALSO.items():
        print(name)
        tokenizer, raw = of_gguf(name) if name in ("smollm2", "qwen2.5-coder-0.5b") else of_folder(name)
        short = {} if name == "llama3_1_tools" else in_short(tokenizer, raw, all_texts)
        vocabularies[name] = {**short, "conversations": [conversation(tokenizer, case) for case in COMMON + also]}
    made = {"texts": all_texts, "conversations": conversations, "vocabularies": vocabularies}
    # One line for each value of the outer objects: whole files of one line cannot be compared by people.
    lines = []
    for key, value in made.items():
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        short = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        inner = [f"{short(name)}:{short(entry)}" if isinstance(value, dict) else short(entry) for name, entry in entries]
        open_, close = "{}" if isinstance(value, dict) else "[]"
        lines.append(f"{short(key)}:{open_}\n" + ",\n".join(inner) + f"\n{close}")
    OUT.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
