"""The embedded model's tokenizer: a small byte-level BPE whose tags, file names and numbers are single tokens.

Copying a name or a line is the model's main work, and it copies tokens: with tags and names split into pieces the same
training budget gave a model that never resolved a task.
"""

import random
import re
from pathlib import Path
from typing import Any

from scripts.nano.corpus import episodes

from looper.bench.micro.names import NOUNS

VOCABULARY = 896
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
END = "<|end|>"
PAD = "<|pad|>"
SPECIAL = (PAD, *ROLES, END)
TAGS = (
    "<bash>",
    "</bash>",
    "<read>",
    "</read>",
    '<edit path="',
    '">',
    "<old>",
    "</old>",
    "<new>",
    "</new>",
    "</edit>",
    "<done>",
    "</done>",
)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Append-only: the prompt of the next turn begins with the prompt and reply of this one, so that caches stay valid."""

_PIECES = r" (?=\w+\.py)|\w+\.py| ?[A-Za-z]+| ?\d+|\n *|\t *| ?[^\sA-Za-z\d]+|\s+"


def train_tokenizer(sample: int = 3000, seed: int = 1) -> Any:
    """A transformers tokenizer trained on `sample` episodes of the corpus."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    stream = episodes(random.Random(seed))
    texts = [text for _ in range(sample) for _, text in next(stream).messages]
    texts += [f" {noun} {noun}_x _{noun}" for noun in NOUNS for _ in range(20)]
    between_tags = re.compile("|".join(map(re.escape, TAGS)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([between_tags.sub("\n", text) for text in texts], trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
