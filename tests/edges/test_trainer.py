"""Training adapters with MLX: what is supervised, what comes out, what is not believed. Guards G-02, G-36 to G-38."""

import json
import math
import os
import random
import re
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripts.nano.corpus import SLIP, episodes
from tests.fakes.scripted_http import ScriptedServer, free_port
from tests.fakes.scripted_http import whole as reply

from looper.edges.models.arrival import TEXTS, Arrival, NextTokens, ServedAdapter, arrived
from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.ollama_adapters import AdaptedOllamaModel, register
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.trainers import estimate, mlx
from looper.edges.trainers.encoding import (
    Encoded,
    encode,
    length_histogram,
    supervised_spans,
    whole_conversation,
    windows,
)
from looper.edges.trainers.estimate import memory_bytes
from looper.edges.trainers.gguf_adapter import to_gguf
from looper.edges.trainers.mlx import MlxTrainer, must_be_complete, must_have_learned
from looper.edges.trainers.peft import PEFT_WEIGHTS, from_peft, to_peft
from looper.errors import (
    BadInput,
    ModelMissing,
    ModelOverloaded,
    ModelUnfit,
    ModelUnreachable,
    TrainingFailed,
)
from looper.protocols import ChatRequest
from looper.records.training import (
    AdapterKind,
    AdapterRecord,
    Example,
    Library,
    Make,
    Objective,
    TrainingEvent,
    TrainingRequest,
    TrainingSettings,
    Turn,
)

NANO = json.loads((nano_folder() / "config.json").read_text())
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "nano": None,
    "chatml": CHATML,
    "headers": (
        "<s>{% for m in messages %}[{{ m.role }}]\n\n{{ m.content }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]\n\n{% endif %}"
    ),
    "inst": (
        "<s>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>"
        "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    ),
    "turns": (
        "<bos>{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
        "{{ m.content }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "plain": (
        "{% for m in messages %}{{ m.role|upper }}: {{ m.content }}\n###\n{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
    ),
}
FORGETFUL = (
    "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""Drops what the model said before, as templates do that strip earlier reasoning."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(nano_folder()))


def conversation(*assistant: str) -> tuple[Turn, ...]:
    turns = [Turn(role="system", text="fix the bug"), Turn(role="user", text="issue scale_oak is wrong")]
    for text in assistant:
        turns += [Turn(role="assistant", text=text, supervised=True), Turn(role="user", text="ok")]
    return tuple(turns[:-1])


ACTIONS = ("<bash>python check.py</bash>", "<read>ops.py:1-9</read>", "<done>fixed</done>")


@pytest.mark.parametrize("name", TEMPLATES)
def test_g36_exactly_the_assistant_turns_are_trained_with_any_template(tokenizer: Any, name: str) -> None:
    if TEMPLATES[name] is not None:
        tokenizer = type(tokenizer).from_pretrained(str(nano_folder()))
        tokenizer.chat_template = TEMPLATES[name]
    turns = conversation(*ACTIONS)
    text, spans = supervised_spans(tokenizer, turns)
    assert len(spans) == 3
    for (start, end), action in zip(spans, ACTIONS, strict=True):
        said = text[start:end]
        assert said.strip().startswith(action)
        # Beyond its words the model has to learn to stop, and nothing else.
        assert len(said.strip()) - len(action) <= len("<end_of_turn>") + 1
        assert "user" not in said.removeprefix(action) and "ok" not in said
    tokens, weights = encode(tokenizer, turns)
    trained = tokenizer.decode([token for token, weight in zip(tokens, weights, strict=True) if weight])
    assert (
        all(action in trained for action in ACTIONS) and "issue" not in trained and "fix the" not in trained
    )
    light = Example(source="", instance_id="", repo="", turns=tuple(turns), weight=0.2)
    found = whole_conversation(tokenizer, light)
    assert found.weights == [0.2 * weight for weight in weights] and found.supervised == sum(weights)


def test_g36_a_template_that_rewrites_the_past_is_refused(tokenizer: Any) -> None:
    forgetful = type(tokenizer).from_pretrained(str(nano_folder()))
    forgetful.chat_template = FORGETFUL
    with pytest.raises(BadInput, match="only appends"):
        encode(forgetful, conversation(*ACTIONS))


def test_g36_only_the_model_s_own_words_can_be_supervised() -> None:
    with pytest.raises(ValueError, match="never trained on"):
        Turn(role="user", text="x", supervised=True)


@pytest.mark.parametrize("limit", [40, 60, 90, 200, 4000])
def test_g37_every_action_is_trained_once_whole_and_at_the_end_of_a_window(
    tokenizer: Any, limit: int
) -> None:
    actions = [f"<bash>python check.py {number}</bash>" for number in range(12)]
    example = Example(source="s", instance_id="t", repo="r", turns=conversation(*actions))
    found, too_long = windows(tokenizer, example, limit)
    assert not too_long and all(len(window.tokens) <= limit for window in found)
    taught = []
    for window in found:
        text = tokenizer.decode(window.tokens)
        assert text.startswith(tokenizer.decode(encode(tokenizer, example.turns[:2])[0])), "the opening stays"
        assert window.weights[-1] == 1.0, "nothing after the last action"
        trained = tokenizer.decode(
            [token for token, weight in zip(window.tokens, window.weights, strict=True) if weight]
        )
        taught += [action for action in actions if action in trained]
    assert taught == actions
    assert len(found) == 1 or limit < 4000


def test_g37_an_action_that_fits_in_no_window_is_counted_and_never_cut(tokenizer: Any) -> None:
    long = "<bash>" + " ".join(["python"] * 300) + "</bash>"
    example = Example(source="s", instance_id="t", repo="r", turns=conversation(ACTIONS[0], long, ACTIONS[2]))
    found, too_long = windows(tokenizer, example, 120)
    assert too_long == 1 and sum(window.turns for window in found) == 2
    assert all("python python" not in tokenizer.decode(window.tokens) for window in found)


def test_c13_twice_as_long_a_conversation_costs_twice_as_much(tokenizer: Any) -> None:
    class Counting:
        """The tokenizer, with what it was given to read."""

        characters = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **settings: Any) -> Any:
            self.characters += len(text)
            return tokenizer(text, **settings)

    def cost(steps: int) -> int:
        counting = Counting()
        actions = [f"<bash>python check.py {number}</bash>" for number in range(steps)]
        windows(counting, Example(source="s", instance_id="t", repo="r", turns=conversation(*actions)), 100)
        return counting.characters

    assert cost(120) < 2.5 * cost(60)


def test_the_length_histogram_counts_every_example() -> None:
    assert length_histogram([5, 128, 129, 600]) == {"128": 2, "256": 1, "1024": 1}


def test_g38_the_multiplier_is_what_the_weights_change_by() -> None:
    """ΔW = multiplier · B·A, in the layer that trains and in the adapter that is served."""
    import mlx.core as mx
    from mlx_lm.utils import load

    from looper.edges.trainers.mlx_child import adapt, relative_change

    model = load(str(nano_folder()))[0]
    before = model.layers[0].self_attn.q_proj
    weight, x = before.weight, mx.random.normal((3, 128))
    plain = before(x)
    settings = SETTINGS.model_copy(update={"rank": 4, "multiplier": 2.0})
    adapt(model, settings)
    layer = model.layers[0].self_attn.q_proj
    layer.lora_b = mx.random.normal(layer.lora_b.shape)
    expected = 2.0 * (x @ layer.lora_a @ layer.lora_b)
    assert float(mx.abs(layer(x) - plain - expected).max()) < 1e-4
    change = mx.linalg.norm(2.0 * layer.lora_a @ layer.lora_b)
    total = math.sqrt(
        sum(
            float((module.linear.weight**2).sum())
            for _, module in model.named_modules()
            if hasattr(module, "lora_a")
        )
    )
    assert relative_change({}, model) == pytest.approx(float(change) / total, rel=1e-4)
    assert weight.shape == (128, 128)


SETTINGS = TrainingSettings(
    learning_rate=1e-3, iterations=12, batch_size=4, max_tokens=512, multiplier=10.0, checkpoint_every=4
)


def experience(count: int) -> tuple[Example, ...]:
    """Conversations of the expert that the embedded model was made from."""
    stream, found = episodes(random.Random(3)), []
    for number in range(count):
        turns = tuple(
            Turn.model_validate(
                {
                    "role": "assistant" if role == SLIP else role,
                    "text": text,
                    "supervised": role == "assistant",
                }
            )
            for role, text in next(stream).messages
        )
        found.append(Example(source=f"s{number}", instance_id=f"t{number // 2}", repo="r", turns=turns))
    return tuple(found)


def request_for(nano: MlxModel, **changes: Any) -> TrainingRequest:
    fields = {"base": nano.identity(), "make": Make.TRAINED, "settings": SETTINGS, "examples": experience(10)}
    return TrainingRequest.model_validate({**fields, **changes})


@pytest.fixture(scope="module")
def lora(nano: MlxModel, trainer: MlxTrainer) -> AdapterRecord:
    return trainer.train(request_for(nano))


PROMPT = (("system", "fix the bug"), ("user", "repo keswimvex\nissue scale_oak is wrong"))


def test_training_moves_the_loss_and_says_where_the_adapter_comes_from(
    lora: AdapterRecord, nano: MlxModel
) -> None:
    losses = [point.loss for point in lora.train_losses]
    assert len(losses) == 12 and len(set(losses)) > 6 and all(loss > 0 for loss in losses)
    assert lora.base == nano.identity() and lora.tasks == ("t0", "t1", "t2", "t3", "t4")
    assert lora.sources == tuple(f"s{number}" for number in range(10))
    assert 0 < lora.supervised_tokens < lora.trained_tokens and sum(lora.length_histogram.values()) == 10
    assert 0 < lora.relative_change < 0.5 and lora.kept_iteration == 12 and lora.seconds > 0


def test_the_same_request_is_trained_once(lora: AdapterRecord, nano: MlxModel, trainer: MlxTrainer) -> None:
    events: list[TrainingEvent] = []
    assert trainer.train(request_for(nano), events.append) == lora and not events
    assert trainer.load(lora.id) == lora
    other = request_for(nano, settings=SETTINGS.model_copy(update={"seed": 1}))
    assert other.adapter_id() != lora.id


def test_the_adapter_is_served_beside_base_in_one_process_and_base_stays_what_it_was(
    lora: AdapterRecord, nano: MlxModel, trainer: MlxTrainer
) -> None:
    before = nano.first_logits(PROMPT)
    adapted = nano.with_adapter(trainer.folder(lora.id))
    assert adapted.first_logits(PROMPT) != before
    assert nano.first_logits(PROMPT) == before
    assert adapted.identity().digest == nano.identity().digest
    assert adapted.identity().adapter and not nano.identity().adapter


@pytest.mark.parametrize("kind", [AdapterKind.DORA, AdapterKind.FULL])
def test_base_comes_back_exactly_after_any_kind_of_adapter(
    kind: AdapterKind, nano: MlxModel, trainer: MlxTrainer
) -> None:
    settings = SETTINGS.model_copy(update={"kind": kind, "iterations": 4, "learning_rate": 1e-4})
    card = trainer.train(request_for(nano, settings=settings))
    assert card.relative_change > 0
    before = nano.first_logits(PROMPT)
    adapted = nano.with_adapter(trainer.folder(card.id))
    assert adapted.first_logits(PROMPT) != before and nano.first_logits(PROMPT) == before


def test_g12_the_zero_adapter_is_base_token_for_token(nano: MlxModel, trainer: MlxTrainer) -> None:
    card = trainer.train(request_for(nano, make=Make.ZERO, examples=()))
    zero = nano.with_adapter(trainer.folder(card.id))
    assert card.relative_change == 0 and zero.first_logits(PROMPT) == nano.first_logits(PROMPT)
    request = ChatRequest("zero", PROMPT, 60, 2048, 0.7, 5, 60.0)
    assert zero.reply(request).text == nano.reply(request).text


def test_a_random_adapter_changes_as_much_in_no_direction(
    lora: AdapterRecord, nano: MlxModel, trainer: MlxTrainer
) -> None:
    card = trainer.train(request_for(nano, make=Make.RANDOM, examples=(), parts=(lora.id,)))
    assert card.relative_change == pytest.approx(lora.relative_change, rel=0.5)
    random_one, trained = (nano.with_adapter(trainer.folder(found.id)) for found in (card, lora))
    assert random_one.first_logits(PROMPT) != trained.first_logits(PROMPT)


def test_rollouts_with_different_adapters_at_the_same_time_get_their_own_replies(
    lora: AdapterRecord, nano: MlxModel, trainer: MlxTrainer
) -> None:
    models = [nano, nano.with_adapter(trainer.folder(lora.id))]
    request = ChatRequest("r", PROMPT, 60, 2048, 1.0, 7, 60.0)

    def ask(number: int, where: str) -> str:
        asked = replace(request, conversation=f"{where}{number}", seed=number)
        return models[number % 2].reply(asked).text

    alone = [ask(number, "alone") for number in range(8)]
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=number: found.__setitem__(n, ask(n, "together")))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == alone


def test_one_conversation_under_two_adapters_shares_no_cache(
    lora: AdapterRecord, nano: MlxModel, trainer: MlxTrainer
) -> None:
    request = ChatRequest("shared", PROMPT, 60, 2048, 0.0, 7, 60.0)
    nano.reply(request)
    reply = nano.with_adapter(trainer.folder(lora.id)).reply(request)
    assert reply.usage.processed_prompt_tokens == reply.usage.prompt_tokens


def test_g46_preference_training_makes_the_chosen_likelier_than_the_rejected(
    nano: MlxModel, trainer: MlxTrainer
) -> None:
    """Measured with the formula written out again, on the served arrays: base is the same model without adapter."""
    import mlx.core as mx
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load

    from looper.edges.trainers.mlx_batches import padded
    from looper.edges.trainers.mlx_losses import log_probabilities

    opening = (
        Turn(role="system", text="fix the bug"),
        Turn(role="user", text="repo a\nissue scale_oak is wrong"),
    )

    def saying(action: str, number: int) -> Example:
        turns = (*opening, Turn(role="assistant", text=action, supervised=True))
        return Example(source=f"s{number}", instance_id=f"t{number}", repo="r", turns=turns)

    chosen = tuple(saying("<read>util.py:1-9</read>", number) for number in range(4))
    rejected = tuple(saying("<bash>python check.py</bash>", number) for number in range(4))
    settings = SETTINGS.model_copy(update={"objective": Objective.PREFERENCE, "learning_rate": 1e-3})
    card = trainer.train(request_for(nano, examples=chosen, rejected=rejected, settings=settings))
    assert card.train_losses[0].loss == pytest.approx(math.log(2), abs=1e-3), "at first nothing is preferred"
    assert card.train_losses[-1].loss < 0.5

    model, tokenizer = load(str(nano_folder()))[:2]
    encoded = [encode(tokenizer._tokenizer, example.turns) for example in (chosen[0], rejected[0])]

    def measured() -> list[float]:
        found = []
        for tokens, weights in encoded:
            logits = model(mx.array(tokens[:-1])[None]).astype(mx.float32)
            logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            found.append(
                sum(
                    float(logs[0, at, token].item())
                    for at, (token, weight) in enumerate(zip(tokens[1:], weights[1:], strict=True))
                    if weight
                )
            )
        return found

    before = measured()
    load_adapters(model, str(trainer.folder(card.id)))
    after = measured()
    assert after[1] < before[1], "the rejected lost probability"
    margin = (after[0] - before[0]) - (after[1] - before[1])
    assert margin > 1 and -math.log(1 / (1 + math.exp(-0.1 * margin))) < 0.6
    piece = Encoded("s", "t", *encoded[0], 1, [])
    assert float(log_probabilities(model, *padded([piece])).item()) == pytest.approx(after[0], rel=1e-2)


def test_g46_without_pairs_there_is_no_preference_training(nano: MlxModel) -> None:
    settings = SETTINGS.model_copy(update={"objective": Objective.PREFERENCE})
    with pytest.raises(ValueError, match="rejected: 0 for 10 examples"):
        request_for(nano, settings=settings)
    with pytest.raises(ValueError, match="only the preference objective"):
        request_for(nano, rejected=experience(10))


def test_validation_keeps_whole_tasks_aside_and_keeps_the_best_weights(
    nano: MlxModel, trainer: MlxTrainer
) -> None:
    settings = SETTINGS.model_copy(
        update={"validation_share": 0.4, "evaluate_every": 2, "patience": 2, "learning_rate": 0.05}
    )
    card = trainer.train(request_for(nano, settings=settings))
    assert (card.train_examples, card.validation_examples) == (6, 4)
    best = min(card.validation_losses, key=lambda point: point.loss)
    assert card.kept_iteration == best.iteration
    assert card.validation_losses[-1].iteration < 12, "a rate this high makes it worse: it stops early"


@pytest.mark.slow
def test_killed_at_any_moment_nothing_half_made_is_listed_and_the_rerun_goes_on(
    nano: MlxModel, tmp_path: Path
) -> None:
    request = request_for(nano)
    unbroken = MlxTrainer(nano_folder(), tmp_path / "whole").train(request)
    trainer = MlxTrainer(nano_folder(), tmp_path / "killed")
    begun: list[int] = []

    def kill_after(event: TrainingEvent) -> None:
        if event.event == "loaded":
            begun.append(event.iteration)
        if event.event == "checkpoint" and event.iteration in (4, 8) and event.iteration > begun[-1]:
            os.kill(child_of(tmp_path / "killed"), signal.SIGKILL)

    for _ in range(2):
        with pytest.raises(TrainingFailed, match="goes on from its last checkpoint"):
            trainer.train(request, kill_after)
        assert not trainer.folder(request.adapter_id()).exists()
    card = trainer.train(request, kill_after)
    assert begun == [0, 4, 8]
    ours, theirs = ([point.loss for point in found.train_losses] for found in (card, unbroken))
    assert ours == pytest.approx(theirs, rel=1e-3)


def child_of(adapters: Path) -> int:
    """The training process that works below a folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(adapters) in path.read_text():
                return int(path.parent.name)
        except OSError:
            continue
    raise AssertionError("no training process")


@pytest.mark.parametrize(
    ("outcome", "named"),
    [
        ({}, "train_losses"),
        ({"train_losses": [{"iteration": 1, "loss": 1.0}], "relative_change": 1.0}, "two are the least"),
        (
            {
                "train_losses": [{"iteration": 1, "loss": 1.0}, {"iteration": 2, "loss": float("nan")}],
                "relative_change": 1.0,
            },
            "finite",
        ),
        (
            {
                "train_losses": [{"iteration": 1, "loss": 0.0}, {"iteration": 2, "loss": 0.0}],
                "relative_change": 1.0,
            },
            "finite, positive",
        ),
        (
            {
                "train_losses": [{"iteration": 1, "loss": 0.5}, {"iteration": 2, "loss": 0.5}],
                "relative_change": 1.0,
            },
            "never moves",
        ),
        (
            {
                "train_losses": [{"iteration": 1, "loss": 0.5}, {"iteration": 2, "loss": 0.4}],
                "relative_change": 0.0,
            },
            "changes nothing",
        ),
    ],
    ids=["no losses", "one loss", "nan", "zeros", "constant", "no change"],
)
def test_g02_a_training_without_believable_figures_makes_no_adapter(
    outcome: dict[str, Any], named: str
) -> None:
    with pytest.raises(TrainingFailed, match=named):
        must_have_learned(outcome)


def test_g36_a_mask_that_lost_turns_makes_no_adapter(nano: MlxModel) -> None:
    request = request_for(nano)
    asked = sum(turn.supervised for example in request.examples for turn in example.turns)
    must_be_complete({"supervised_turns": asked - 2, "too_long": 2}, request)
    with pytest.raises(TrainingFailed, match=f"10 of {asked} actions were trained on"):
        must_be_complete({"supervised_turns": 10, "too_long": 0}, request)


def test_a_training_that_does_not_fit_is_refused_with_the_estimate(
    nano: MlxModel, trainer: MlxTrainer
) -> None:
    vast = SETTINGS.model_copy(update={"rank": 10**9})
    with pytest.raises(BadInput, match=r"needs about \d+\.\d GiB and \d+\.\d GiB are free. Lower rank"):
        trainer.train(request_for(nano, settings=vast))


def test_the_estimate_grows_with_what_costs_memory() -> None:
    def needed(**changes: Any) -> int:
        return memory_bytes(nano_folder(), SETTINGS.model_copy(update=changes))

    assert needed() < needed(rank=64) < needed(kind=AdapterKind.FULL, rank=64, batch_size=8)
    assert needed(batch_size=8) > 1.5 * needed(batch_size=4) and needed(max_tokens=1024) > 2 * needed()
    assert needed(grad_checkpoint=True) < needed() and needed(layers=1) < needed()


def test_the_estimate_of_a_model_that_sees_as_well_is_that_of_its_language_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(nano_folder(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": config}))
    assert memory_bytes(folder, SETTINGS) == memory_bytes(nano_folder(), SETTINGS)
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": None}))
    with pytest.raises(BadInput, match="cannot be read: TypeError"):
        memory_bytes(folder, SETTINGS)


def test_the_estimate_is_not_below_what_was_taken(lora: AdapterRecord) -> None:
    """The interpreter with its libraries takes some 300 MB of its own; what training adds must be covered. PyTorch, where it
    is installed, is not in it. A CUDA context takes another gigabyte."""
    import mlx.core as mx

    if mx.default_device().type != mx.DeviceType.cpu:
        pytest.skip("the memory of the host is estimated, and this device has its own")
    assert memory_bytes(nano_folder(), lora.settings) > lora.peak_memory_bytes - (400 << 20)


def test_nothing_to_train_on_is_bad_input(nano: MlxModel, trainer: MlxTrainer) -> None:
    short = SETTINGS.model_copy(update={"max_tokens": 10})
    with pytest.raises(BadInput, match="Raise max_tokens"):
        trainer.train(request_for(nano, settings=short))


def test_a_damaged_adapter_or_one_for_another_model_is_refused_and_base_still_answers(
    lora: AdapterRecord, nano: MlxModel, trainer: MlxTrainer, tmp_path: Path
) -> None:
    import shutil

    with pytest.raises(ModelMissing, match=r"adapter_config\.json is missing"):
        nano.with_adapter(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(trainer.folder(lora.id), broken)
    (broken / "adapters.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelMissing, match="damaged, or was made for another model"):
        nano.with_adapter(broken).first_logits(PROMPT)
    other = tmp_path / "other"
    shutil.copytree(trainer.folder(lora.id), other)
    config = (other / "adapter_config.json").read_text().replace('"rank": 8', '"rank": 3')
    (other / "adapter_config.json").write_text(config)
    with pytest.raises(ModelMissing, match="cannot be used with nano"):
        nano.with_adapter(other).first_logits(PROMPT)
    assert nano.first_logits(PROMPT)


def test_an_adapter_whose_weights_changed_after_its_card_is_refused(
    nano: MlxModel, trainer: MlxTrainer
) -> None:
    card = trainer.train(
        request_for(nano, make=Make.ZERO, examples=(), settings=SETTINGS.model_copy(update={"rank": 2}))
    )
    with (trainer.folder(card.id) / "adapters.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BadInput, match="not the ones on its card"):
        trainer.load(card.id)


def test_without_enough_memory_training_does_without_and_says_so(
    nano: MlxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rung of the ladder cuts an example or takes a factor away."""
    settings = SETTINGS.model_copy(update={"batch_size": 8, "iterations": 3})
    wanted = memory_bytes(
        nano_folder(), settings.model_copy(update={"grad_checkpoint": True, "batch_size": 4})
    )
    monkeypatch.setattr(estimate, "free_bytes", lambda: int(1.2 * wanted))
    told: list[TrainingEvent] = []
    request = request_for(nano, settings=settings)
    card = MlxTrainer(nano_folder(), tmp_path).train(request, told.append)
    said = [event.said for event in told if event.event == "less_memory"]
    assert [text.partition(", because")[0] for text in said] == [
        "activations are computed twice and not kept",
        "batches have 4 examples",
    ]
    assert card.id == request.adapter_id() and card.too_long == 0
    changed = card.settings.model_copy(update={"grad_checkpoint": False, "batch_size": 8})
    assert changed == settings


def test_g15_a_training_that_reports_no_loss_makes_no_adapter(
    nano: MlxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mlx.CHILDREN, Library.MLX, "tests.fakes.silent_trainer")
    request, trainer = request_for(nano), MlxTrainer(nano_folder(), tmp_path)
    with pytest.raises(TrainingFailed, match="no train_losses"):
        trainer.train(request)
    assert not trainer.has(request.adapter_id()) and trainer.ids() == []


def test_a_child_that_ran_out_of_memory_is_begun_again_with_less(
    nano: MlxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter([0, 1])
    monkeypatch.setattr(mlx, "oom_kills", lambda: next(kills, 1))
    killed: list[int] = []
    told: list[TrainingEvent] = []

    def end(event: TrainingEvent) -> None:
        told.append(event)
        if event.event == "loss" and not killed:
            killed.append(child_of(tmp_path))
            os.kill(killed[0], signal.SIGKILL)

    card = MlxTrainer(nano_folder(), tmp_path).train(request_for(nano), end)
    assert killed and card.settings.grad_checkpoint
    assert sum(event.event == "less_memory" for event in told) == 1


@pytest.mark.proof
def test_a_quantised_base_carries_a_trained_adapter(nano: MlxModel, tmp_path: Path) -> None:
    """QLoRA: the base stays in 4 bits, the factors are trained in full."""
    from mlx_lm.convert import convert

    small = tmp_path / "nano-4bit"
    convert(str(nano_folder()), str(small), quantize=True, q_bits=4, q_group_size=64)
    model = MlxModel(small, name="nano-4bit", context_tokens=2048)
    try:
        trainer = MlxTrainer(small, tmp_path / "adapters")
        request = request_for(nano, base=model.identity())
        card = trainer.train(request)
        losses = [point.loss for point in card.train_losses]
        assert model.identity().quantisation == "4-bit" and losses[-1] < losses[0]
        adapted = model.with_adapter(trainer.folder(card.id))
        assert sum(adapted.losses(request.examples)) < sum(model.losses(request.examples))
    finally:
        model.close()


def test_an_adapter_goes_to_the_layout_of_peft_and_back(
    lora: AdapterRecord, nano: MlxModel, trainer: MlxTrainer, tmp_path: Path
) -> None:
    """The change that PEFT makes, lora_alpha / r · B·A, is the one that is served here."""
    from safetensors.numpy import load_file

    out, adapters = tmp_path / "peft", tmp_path / "adapters"
    to_peft(trainer.folder(lora.id), lora, out)
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 80) and "q_proj" in config["target_modules"]
    assert isinstance(config["lora_alpha"], int), "80.0 is no number to readers that want a whole one"
    ours = load_file(trainer.folder(lora.id) / "adapters.safetensors")
    theirs = load_file(out / "adapter_model.safetensors")
    layer = "model.layers.0.self_attn.q_proj"
    a, b = (theirs[f"base_model.model.{layer}.lora_{which}.weight"] for which in "AB")
    change = config["lora_alpha"] / config["r"] * (b @ a)
    served = 10.0 * (ours[f"{layer}.lora_a"] @ ours[f"{layer}.lora_b"]).T
    assert change.shape == (128, 128) and abs(change - served).max() < 1e-6
    back = from_peft(out, adapters)
    assert back.tasks == lora.tasks
    first, second = (
        nano.with_adapter(folder).first_logits(PROMPT)
        for folder in (trainer.folder(lora.id), adapters / lora.id)
    )
    assert first == second
    with pytest.raises(BadInput, match="there already"):
        from_peft(out, adapters)
    with pytest.raises(BadInput, match="not empty"):
        to_peft(trainer.folder(lora.id), lora, out)
    (out / "adapter.json").unlink()
    with pytest.raises(BadInput, match="no card"):
        from_peft(out, tmp_path / "other")
    (out / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(BadInput, match="holds no adapter"):
        from_peft(out, tmp_path / "other")


def test_what_peft_has_no_word_for_is_refused(
    lora: AdapterRecord, trainer: MlxTrainer, tmp_path: Path
) -> None:
    dora = lora.model_copy(update={"settings": SETTINGS.model_copy(update={"kind": AdapterKind.DORA})})
    for card in (dora, lora.model_copy(update={"make": Make.MIXTURE})):
        with pytest.raises(BadInput, match="only plain LoRA"):
            to_peft(trainer.folder(lora.id), card, tmp_path / "out")
        with pytest.raises(BadInput, match="only plain LoRA"):
            to_gguf(trainer.folder(lora.id), card, NANO, tmp_path / "out.gguf")


def rows_in_llama_cpp(rows: Any, heads: int) -> Any:
    """Row for row: in each head the first and the second half take turns."""
    size = len(rows) // heads
    order = [
        head * size + half * size // 2 + at
        for head in range(heads)
        for at in range(size // 2)
        for half in (0, 1)
    ]
    return rows[order]


@pytest.mark.parametrize(
    ("kind", "architecture"), [("llama", "llama"), ("mistral", "llama"), ("qwen2", "qwen2")]
)
def test_an_adapter_as_gguf_changes_what_it_changes_here(
    lora: AdapterRecord, trainer: MlxTrainer, tmp_path: Path, kind: str, architecture: str
) -> None:
    """The change alpha / rank · B·A of each matrix, in the order of rows in which llama.cpp keeps that matrix. Tried by hand with llama.cpp
    itself: log probabilities as MLX gives them, to 0.007 with the adapter and 0.009 without (SmolLM2, F32)."""
    from gguf import GGUFReader
    from safetensors.numpy import load_file

    file = tmp_path / "adapter.gguf"
    to_gguf(trainer.folder(lora.id), lora, {**NANO, "model_type": kind}, file)
    read = GGUFReader(file)
    said = {name: field.contents() for name, field in read.fields.items()}
    assert said["general.architecture"] == architecture
    assert (said["general.type"], said["adapter.type"], said["adapter.lora.alpha"]) == (
        "adapter",
        "lora",
        80.0,
    )
    found = {tensor.name: tensor.data for tensor in read.tensors}
    ours = load_file(trainer.folder(lora.id) / "adapters.safetensors")
    assert len(found) == len(ours) and {
        value.shape[0] for name, value in found.items() if name.endswith("lora_a")
    } == {8}
    for ours_called, called, turned in (
        ("model.layers.0.self_attn.q_proj", "blk.0.attn_q.weight", kind != "qwen2"),
        ("model.layers.3.self_attn.v_proj", "blk.3.attn_v.weight", False),
    ):
        change = (ours[f"{ours_called}.lora_a"] @ ours[f"{ours_called}.lora_b"]).T
        wanted = rows_in_llama_cpp(change, NANO["num_attention_heads"]) if turned else change
        assert abs(found[f"{called}.lora_b"] @ found[f"{called}.lora_a"] - wanted).max() < 1e-6
    with pytest.raises(BadInput, match="there already"):
        to_gguf(trainer.folder(lora.id), lora, NANO, file)


def test_an_adapter_of_a_model_that_gguf_is_not_written_for_is_refused(
    lora: AdapterRecord, trainer: MlxTrainer, tmp_path: Path
) -> None:
    with pytest.raises(
        BadInput, match=r"of the type qwen3, and adapters are written as GGUF for llama, mistral, qwen2 only"
    ):
        to_gguf(trainer.folder(lora.id), lora, {**NANO, "model_type": "qwen3"}, tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())


class Registry:
    """An Ollama server that models can be made on, and that says what those in `served` say."""

    def __init__(self, level: str, architecture: str = "llama", **served: MlxModel) -> None:
        self.level, self.architecture, self.served = level, architecture, served
        self.file_type, self.ends_after = 1, ""
        """The number of F16 in GGUF's header, and a text after which the model says nothing."""
        self.blobs, self.made, self.deleted = list[str](), list[dict[str, Any]](), list[str]()
        self.refuses, self.refuses_with = b"", 500
        """What is said in place of next tokens."""
        self.keeps = set[str]()
        """Models that were made for an arm."""

    def __call__(self, request: bytes) -> Any:
        head, _, body = request.partition(b"\r\n\r\n")
        path = head.split()[1].decode()
        if path == "/api/tags":
            details = {"quantization_level": self.level}
            entries = [
                {"model": f"{name}:latest", "digest": f"sha256:{'d' * 64}", "details": details}
                for name in ("tiny", *self.keeps)
            ]
            return reply(200, json.dumps({"models": entries}).encode())
        if path == "/api/version":
            return reply(200, b'{"version": "0.24.0"}')
        if path == "/api/chat":
            asked = json.loads(body)["model"]
            if asked not in ("tiny", *self.keeps):
                return reply(404, json.dumps({"error": f"model '{asked}' not found"}).encode())
            said = {"message": {"role": "assistant", "content": asked}, "done": True, "done_reason": "stop"}
            return reply(200, json.dumps(said).encode())
        if path == "/api/show":
            info = {"general.architecture": self.architecture, "general.file_type": self.file_type}
            return reply(200, json.dumps({"model_info": info}).encode())
        if path == "/api/generate" and self.refuses:
            return reply(self.refuses_with, self.refuses)
        if path == "/api/generate":
            return reply(200, json.dumps(self._generated(json.loads(body))).encode())
        if path.startswith("/api/blobs/"):
            self.blobs.append(path.rpartition("/")[2])
        elif path == "/api/create":
            self.made.append(json.loads(body))
            self.keeps |= {name for name in (self.made[-1]["model"],) if name.startswith("looper-")}
        elif path == "/api/delete":
            self.deleted.append(json.loads(body)["model"])
            self.keeps.discard(self.deleted[-1])
        return reply(200, b'{"status": "success"}')

    def _generated(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["raw"] and asked["options"]["repeat_penalty"] == 1.0, "else it is no plain distribution"
        found: dict[str, Any] = {"model": asked["model"], "response": "x", "done": True}
        if asked["model"] in self.served and asked["prompt"] != self.ends_after:
            said = self.served[asked["model"]].next_tokens(asked["prompt"], asked["top_logprobs"])
            top = [{"token": token, "logprob": value} for token, value in said.items()]
            found["logprobs"] = [{**top[0], "top_logprobs": top}]
        return found


def test_an_adapter_becomes_a_model_of_ollama_where_the_base_is_whole(
    lora: AdapterRecord, trainer: MlxTrainer, nano: MlxModel
) -> None:
    folder = trainer.folder(lora.id)
    registry = Registry("F16", tiny=nano, mine=nano.with_adapter(folder))
    with ScriptedServer(registry) as server:
        said = register(folder, lora, NANO, "tiny", "mine", server.url, nano)
        assert re.fullmatch(
            r"log .* within 0\.000 nats of MLX's with the adapter, 0\.000 without; the adapter moves them by up to \d+\.\d\d",
            said,
        )
        (made,) = registry.made
        assert made["model"] == "mine" and made["from"] == "tiny" and not registry.deleted
        assert set(made["adapters"]) == {"adapter.gguf"}
        assert set(made["adapters"].values()) == set(registry.blobs)
        with pytest.raises(ModelMissing, match="has no model other"):
            register(folder, lora, NANO, "other", "mine", server.url, nano)
        with pytest.raises(BadInput, match="has a model tiny already"):
            register(folder, lora, NANO, "tiny", "tiny", server.url, nano)
        registry.served |= dict.fromkeys(("other", "third"), registry.served["mine"])
        registry.ends_after = TEXTS[0]
        assert "are within 0.000 nats" in register(folder, lora, NANO, "tiny", "other", server.url, nano)
        registry.level, registry.file_type = "unknown", 0  # What Ollama says of F32.
        assert "are within 0.000 nats" in register(folder, lora, NANO, "tiny", "third", server.url, nano)
        registry.served.clear()
        assert "not compared with MLX" in register(folder, lora, NANO, "tiny", "mine", server.url, nano)
        assert not registry.deleted


@pytest.mark.parametrize(
    ("served", "said"),
    [
        (("base", "base"), "does not compute with the adapter what it was trained to"),
        (("adapted", "adapted"), "tiny is not the model that the adapter was trained on"),
    ],
    ids=["the adapter is left out", "another base"],
)
def test_a_model_of_ollama_that_says_something_else_than_here_is_removed_again(
    lora: AdapterRecord, trainer: MlxTrainer, nano: MlxModel, served: tuple[str, str], said: str
) -> None:
    folder = trainer.folder(lora.id)
    models = {"base": nano, "adapted": nano.with_adapter(folder)}
    registry = Registry("F16", tiny=models[served[0]], mine=models[served[1]])
    with ScriptedServer(registry) as server, pytest.raises(BadInput, match=said):
        register(folder, lora, NANO, "tiny", "mine", server.url, nano)
    assert [made["model"] for made in registry.made] == registry.deleted == ["mine"]


ARMS = f"looper-{'a' * 16}-{'d' * 12}"
"""The model that an arm has with the adapter `aaaa…` beside its base `dddd…`."""


def test_an_arm_has_an_adapter_on_ollama_as_a_model_that_is_named_by_both_and_made_again_where_it_is_gone(
    lora: AdapterRecord, trainer: MlxTrainer, nano: MlxModel, carried: tuple[ServedAdapter, list[str]]
) -> None:
    adapter, told = carried
    registry = Registry("F16", tiny=nano, **{ARMS: nano.with_adapter(trainer.folder(lora.id))})
    with ScriptedServer(registry) as server:
        base = OllamaModel("tiny", base_url=server.url, context_tokens=512)
        model = AdaptedOllamaModel("tiny", adapter, base_url=server.url, context_tokens=512)
        assert model.arrival() == ""
        found = model.identity()
        assert found == base.identity().model_copy(update={"adapter": "a" * 64}), "all arms are on one server"
        (made,) = registry.made
        assert (made["model"], made["from"]) == (ARMS, "tiny")
        assert model.arrival() and told == [
            f"Ollama at {server.url} has the adapter {lora.id}: {model.arrival()}"
        ]
        assert (model.reply(ASKED).text, base.reply(ASKED).text) == (ARMS, "tiny")
        again = AdaptedOllamaModel("tiny", adapter, base_url=server.url, context_tokens=512)
        assert again.reply(ASKED).text == ARMS and len(registry.made) == 1, (
            "what is there is taken, and compared"
        )
        assert len(told) == 2
        registry.keeps.clear()
        assert model.reply(ASKED).text == ARMS and len(registry.made) == 2 and len(told) == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ignored", "does not compute with the adapter what it was trained to"),
        ("another base", "tiny is not the model that the adapter was trained on"),
        (
            "no log probabilities",
            "tells no log probabilities, so whether it has the adapter .* cannot be seen",
        ),
        ("quantised", r"tiny on .* is quantised \(Q4_0\)"),
        ("another kind", "is of the architecture gemma3, and the adapter .* was trained on one of llama"),
        ("refused", r"loras are not yet implemented.* Serve the adapter with mlx:FOLDER"),
    ],
)
def test_an_adapter_that_is_not_in_force_as_it_is_on_ollama_is_refused_before_anything_is_asked(
    lora: AdapterRecord,
    trainer: MlxTrainer,
    nano: MlxModel,
    carried: tuple[ServedAdapter, list[str]],
    fault: str,
    said: str,
) -> None:
    adapter, told = carried
    changed = nano.with_adapter(trainer.folder(lora.id))
    registry = Registry("F16", tiny=nano, **{ARMS: changed})
    # A model of that name which somebody else made, or of which nothing more is known.
    registry.keeps.add(ARMS)
    match fault:
        case "ignored":
            registry.served[ARMS] = nano
        case "another base":
            registry.served["tiny"] = changed
        case "no log probabilities":
            registry.served.clear()
        case "quantised":
            registry.level = "Q4_0"
            registry.keeps.clear()
        case "another kind":
            registry.architecture = "gemma3"
            registry.keeps.clear()
        case "refused":
            registry.refuses = b'{"error": "loras are not yet implemented"}'
    with ScriptedServer(registry) as server, pytest.raises(ModelUnfit, match=said) as caught:
        AdaptedOllamaModel("tiny", adapter, base_url=server.url, context_tokens=512).identity()
    assert "\n" not in str(caught.value) and not caught.value.retryable and not told
    kept = fault in ("another base", "no log probabilities", "refused")
    assert (ARMS in registry.keeps) is kept, (
        "it is removed where it is something else, and made by nobody in vain"
    )


def test_an_ollama_that_is_busy_is_asked_again_for_what_it_computes_with_an_adapter(
    trainer: MlxTrainer, nano: MlxModel, lora: AdapterRecord, carried: tuple[ServedAdapter, list[str]]
) -> None:
    registry = Registry("F16", tiny=nano, **{ARMS: nano.with_adapter(trainer.folder(lora.id))})
    registry.refuses, registry.refuses_with = b'{"error": "server busy, please try again."}', 503
    with ScriptedServer(registry) as server:
        model = AdaptedOllamaModel("tiny", carried[0], base_url=server.url, context_tokens=512)
        with pytest.raises(ModelOverloaded) as caught:
            model.identity()
        assert caught.value.retryable and ARMS in registry.keeps
        registry.refuses = b""
        assert model.identity().adapter == "a" * 64


class Vllm:
    """A vLLM with the model `m`, whose adapters are what MLX makes of theirs, or nothing where it ignores them."""

    def __init__(self, base: MlxModel, carrying: MlxModel) -> None:
        self.base, self.carrying = base, carrying
        self.loaded, self.loads, self.refuses = dict[str, str](), 0, b""
        self.after_the_adapter: MlxModel | None = None
        """What base says once an adapter was asked, where a cache mixes both."""
        self.asked, self.in_turn, self.silent = 0, False, False
        """Whether two servers answer in turn behind one address, and whether log probabilities are told at all."""

    def __call__(self, request: bytes) -> Any:
        head, _, body = request.partition(b"\r\n\r\n")
        asked = json.loads(body) if body else {}
        match head.split()[1].decode():
            case "/v1/models":
                adapters = [{"id": name, "root": root, "parent": "m"} for name, root in self.loaded.items()]
                base = {"id": "m", "root": "/models/m", "max_model_len": 2048}
                found = [{**each, "owned_by": "vllm"} for each in (base, *adapters)]
                return reply(200, json.dumps({"data": found}).encode())
            case "/v1/load_lora_adapter" if self.refuses:
                return reply(500, self.refuses)
            case "/v1/load_lora_adapter":
                assert asked["load_inplace"] is False and (Path(asked["lora_path"]) / PEFT_WEIGHTS).is_file()
                self.loads += 1
                self.loaded[asked["lora_name"]] = asked["lora_path"]
                return reply(200, b"Success: LoRA adapter added successfully.")
            case "/v1/completions":
                assert asked["max_tokens"] == 1 and "prompt_logprobs" not in asked
                if asked["model"] != "m":
                    self.base = self.after_the_adapter or self.base
                self.asked += 1
                model = self.base if asked["model"] == "m" else self.carrying
                if self.in_turn and self.asked % 2:
                    model = self.carrying
                if self.silent:
                    return reply(200, b'{"choices": [{"text": "x", "logprobs": null}]}')
                said = model.next_tokens(asked["prompt"], asked["logprobs"])
                return reply(200, json.dumps({"choices": [{"logprobs": {"top_logprobs": [said]}}]}).encode())
            case "/v1/chat/completions" if asked["model"] not in ("m", *self.loaded):
                return reply(404, b'{"error": {"message": "The model does not exist.", "code": 404}}')
            case "/v1/chat/completions":
                said = {"message": {"content": asked["model"]}, "finish_reason": "stop"}
                return reply(200, json.dumps({"choices": [said]}).encode())
        return reply(404, b'{"detail":"Not Found"}')


@pytest.fixture
def carried(
    lora: AdapterRecord, trainer: MlxTrainer, nano: MlxModel, tmp_path: Path
) -> tuple[ServedAdapter, list[str]]:
    """The trained adapter for somebody else's server, and what is said of it."""
    folder, told = trainer.folder(lora.id), list[str]()

    def in_peft() -> Path:
        if not (tmp_path / "peft").exists():
            to_peft(folder, lora, tmp_path / "peft")
        return tmp_path / "peft"

    def compared(base: NextTokens, adapted: NextTokens, served: str, otherwise: str, cached: str) -> Arrival:
        return arrived(base, adapted, nano, folder, served=served, otherwise=otherwise, cached=cached)

    return ServedAdapter(lora, folder, "a" * 64, lambda: NANO, in_peft, compared, told.append), told


def on(server: ScriptedServer, adapter: ServedAdapter) -> OpenAICompatibleModel:
    model = OpenAICompatibleModel("m", "", base_url=server.url, context_tokens=512, backend="vllm")
    return model.with_adapter(adapter)


ASKED = ChatRequest("c", (("user", "x"),), 8, 512, 0.0, 1, 60.0)


def test_an_adapter_is_loaded_on_vllm_by_its_content_and_again_where_the_server_forgot_it(
    lora: AdapterRecord, trainer: MlxTrainer, nano: MlxModel, carried: tuple[ServedAdapter, list[str]]
) -> None:
    adapter, told = carried
    vllm = Vllm(nano, nano.with_adapter(trainer.folder(lora.id)))
    with ScriptedServer(vllm) as server:
        model = on(server, adapter)
        found = model.identity()
        assert (found.backend, found.adapter, vllm.loads) == ("vllm", "a" * 64, 1)
        assert vllm.loaded == {"looper-" + "a" * 16: str(adapter.in_peft())}
        assert (
            model.reply(ASKED).text == "looper-" + "a" * 16 and model.identity() == found and len(told) == 1
        )
        vllm.loaded.clear()
        assert model.reply(ASKED).text == "looper-" + "a" * 16
        assert vllm.loads == len(told) == 2, "and compared again"
        # As after sleeping: its name is there, and it is not in force.
        vllm.carrying = nano
        with pytest.raises(ModelUnfit, match="does not compute with the adapter what it was trained to"):
            model.identity()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ignored", "does not compute with the adapter what it was trained to"),
        ("another base", "m is not the model that the adapter was trained on"),
        ("a cache that mixes", "m says something else once the adapter was asked"),
        ("two servers in turn", "m answers one question in two ways"),
        (
            "no log probabilities",
            "tells no log probabilities, so whether it has the adapter .* cannot be seen",
        ),
        ("its name is taken", "has a model looper-a+ from /elsewhere, and the adapter is in "),
        ("refused", r"LoRA rank 8 is greater than max_lora_rank 4\. Start vLLM with .* --max-lora-rank 8"),
    ],
)
def test_an_adapter_that_is_not_in_force_as_it_is_on_vllm_is_refused_before_anything_is_asked(
    lora: AdapterRecord,
    trainer: MlxTrainer,
    nano: MlxModel,
    carried: tuple[ServedAdapter, list[str]],
    fault: str,
    said: str,
) -> None:
    adapter, told = carried
    changed = nano.with_adapter(trainer.folder(lora.id))
    vllm = Vllm(nano, nano if fault == "ignored" else changed)
    match fault:
        case "another base":
            vllm.base = changed
        case "a cache that mixes":
            vllm.after_the_adapter = changed
        case "two servers in turn":
            vllm.in_turn = True
        case "no log probabilities":
            vllm.silent = True
        case "its name is taken":
            vllm.loaded["looper-" + "a" * 16] = "/elsewhere"
        case "refused":
            vllm.refuses = (
                b'{"error": {"message": "LoRA rank 8 is greater than max_lora_rank 4.", "code": 500}}'
            )
    with ScriptedServer(vllm) as server, pytest.raises((ModelUnfit, ModelMissing), match=said) as caught:
        on(server, adapter).identity()
    assert "\n" not in str(caught.value) and not caught.value.retryable and not told


def test_that_an_adapter_without_effect_is_in_force_cannot_be_told(
    trainer: MlxTrainer, nano: MlxModel
) -> None:
    zero = trainer.train(request_for(nano, make=Make.ZERO))
    folder = trainer.folder(zero.id)
    with ScriptedServer(Registry("F16", tiny=nano, mine=nano.with_adapter(folder))) as server:
        said = register(folder, zero, NANO, "tiny", "mine", server.url, nano)
    assert said.endswith(
        "the adapter moves none of them by more than 0.000, so that it is in force cannot be told"
    )


def test_an_adapter_is_kept_from_weights_that_are_not_its_own(
    lora: AdapterRecord, trainer: MlxTrainer, nano: MlxModel
) -> None:
    folder, registry = trainer.folder(lora.id), Registry("Q4_K_M")
    with ScriptedServer(registry) as server:
        with pytest.raises(BadInput, match=r"is quantised \(Q4_K_M\)"):
            register(folder, lora, NANO, "tiny", "mine", server.url, nano)
        rounded = lora.model_copy(update={"base": lora.base.model_copy(update={"quantisation": "4-bit"})})
        with pytest.raises(BadInput, match="trained on a base of 4-bit"):
            register(folder, rounded, NANO, "tiny", "mine", server.url, nano)
        registry.level, registry.architecture = "F16", "qwen3"
        with pytest.raises(
            BadInput, match=r"is of the architecture qwen3, and .* was trained on one of llama"
        ):
            register(folder, lora, NANO, "tiny", "mine", server.url, nano)
    assert not registry.made and not registry.blobs
    with pytest.raises(ModelUnreachable, match="cannot be reached"):
        register(folder, lora, NANO, "tiny", "mine", f"http://127.0.0.1:{free_port()}", nano)
