"""What the cache and the batch are worth on the embedded model.

    python scripts/bench_inference.py

A conversation of ten turns that grows to about 4,000 tokens, with and without reuse of the cache, and one rollout
against eight side by side, in tokens generated per second. All in one run; medians over the rounds.
"""

import argparse
import random
import statistics
import threading
import time

from looper.bench.micro.names import NOUNS
from looper.edges.models.mlx import MlxModel, nano_folder
from looper.protocols import ChatRequest, Message

TURNS, GROW_TO, SAY = 10, 4000, 40


def conversation_seconds(model: MlxModel, name: str) -> tuple[float, int, int]:
    """Wall seconds, prompt tokens in the end, prompt tokens computed in all."""
    rng = random.Random(1)
    messages: list[Message] = [("system", "fix the bug")]
    seconds, computed, length = 0.0, 0, 0
    for turn in range(TURNS):
        # About one token a word; what is missing of this turn's share is filled in.
        wanted = GROW_TO * (turn + 1) // TURNS - SAY - length
        messages.append(("user", " ".join(rng.choice(NOUNS) for _ in range(max(1, wanted)))))
        request = ChatRequest(name, tuple(messages), SAY, 8192, 0.0, 1, 600.0)
        begun = time.perf_counter()
        reply = model.reply(request)
        seconds += time.perf_counter() - begun
        computed += reply.usage.processed_prompt_tokens or 0
        length = (reply.usage.prompt_tokens or 0) + (reply.usage.completion_tokens or 0)
        messages.append(("assistant", reply.text))
    model.forget(name)
    return seconds, length, computed


def tokens_per_second(model: MlxModel, rollouts: int) -> float:
    """Aggregate over rollouts side by side, each five turns of a short conversation."""
    said = [0] * rollouts

    def one(number: int) -> None:
        messages: list[Message] = [
            ("system", "fix the bug"),
            ("user", f"repo x\nissue scale_{NOUNS[number]} is wrong"),
        ]
        for turn in range(5):
            name = f"batch{rollouts}-{number}"
            reply = model.reply(ChatRequest(name, tuple(messages), 60, 4096, 1.0, 97 * number + turn, 600.0))
            said[number] += reply.usage.completion_tokens or 0
            messages += [("assistant", reply.text), ("user", "FAIL " + NOUNS[number])]
        model.forget(name)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(rollouts)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(said) / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    reuse = MlxModel(nano_folder(), name="nano", context_tokens=8192)
    plain = MlxModel(nano_folder(), name="nano", context_tokens=8192, reuse=False)
    try:
        for model in (reuse, plain):
            model.count_tokens([("user", "x")])  # Start-up is not what is measured.
        pairs = [
            (conversation_seconds(reuse, f"r{n}"), conversation_seconds(plain, f"p{n}"))
            for n in range(options.rounds)
        ]
        ratio = statistics.median(without[0] / with_[0] for with_, without in pairs)
        with_, without = pairs[-1]
        print(f"{TURNS} turns growing to {with_[1]} tokens, median of {options.rounds} rounds:")
        print(
            f"  with reuse    {statistics.median(pair[0][0] for pair in pairs):6.2f} s, {with_[2]} prompt tokens computed"
        )
        print(
            f"  without reuse {statistics.median(pair[1][0] for pair in pairs):6.2f} s, {without[2]} prompt tokens computed"
        )
        print(f"  ratio {ratio:.1f}")
        rates = {count: [tokens_per_second(reuse, count) for _ in range(options.rounds)] for count in (1, 8)}
        one, eight = (statistics.median(rates[count]) for count in (1, 8))
        print(f"1 rollout {one:.0f} tokens/s, 8 side by side {eight:.0f} tokens/s, ratio {eight / one:.1f}")
    finally:
        reuse.close()
        plain.close()


if __name__ == "__main__":
    main()
