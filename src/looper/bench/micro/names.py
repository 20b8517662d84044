"""Words that generated repositories are made of.

The levels draw words and names of repositories from here. Names fall into two classes by their hash, one for the corpus
that the embedded model is trained on and one for what is evaluated, so that no repository is in both.
"""

import hashlib
import random

NOUNS = (
    "acorn", "alley", "amber", "anchor", "apron", "arch", "arrow", "atlas", "attic", "axle", "badge",
    "bakery", "ballad", "bamboo", "banner", "barley", "barn", "barrel", "basil", "basin", "basket",
    "beacon", "beetle", "bench", "berry", "birch", "blanket", "bolt", "bonnet", "bottle", "boulder", "bow",
    "bowl", "branch", "brick", "bridge", "broom", "brush", "bucket", "buckle", "bundle", "bureau", "butter",
    "button", "cabin", "cactus", "camel", "canal", "candle", "canoe", "canvas", "canyon", "carpet", "cedar",
    "cellar", "chalk", "channel", "chapel", "cherry", "chest", "chimney", "cider", "circle", "cliff",
    "clover", "coach", "coast", "cobalt", "comet", "compass", "copper", "coral", "cotton", "cradle",
    "crane", "crater", "creek", "cricket", "crown", "crystal", "curtain", "cymbal", "dagger", "dairy",
    "daisy", "delta", "desert", "diary", "dome", "donkey", "dragon", "drawer", "easel", "elm", "ember",
    "engine", "fabric", "falcon", "feather", "fence", "fern", "ferry", "fiddle", "field", "finch", "flask",
    "fleet", "flint", "flute", "forest", "fossil", "fountain", "fox", "furnace", "galley", "garden",
    "garlic", "gate", "ginger", "glacier", "glider", "globe", "goblet", "granite", "grape", "gravel",
    "grove", "guitar", "hammer", "harbor", "harvest", "hazel", "helmet", "heron", "hinge", "hive", "hollow",
    "honey", "hornet", "inlet", "island", "ivory", "ivy", "jacket", "jade", "jasmine", "jewel", "jungle",
    "kayak", "kernel", "kettle", "kiln", "ladder", "ladle", "lagoon", "lantern", "larch", "laurel",
    "leather", "ledger", "lemon", "lever", "lilac", "linen", "lizard", "locket", "loom", "lotus", "magnet",
    "mallet", "maple", "marble", "market", "marsh", "meadow", "medal", "melon", "mill", "mint", "mirror",
    "mosaic", "moss", "mural", "needle", "nest", "nickel", "nutmeg", "oak", "oasis", "oat", "ocean",
    "olive", "onion", "opal", "orbit", "orchard", "otter", "oven", "oyster", "paddle", "palace", "panel",
    "parrot", "pearl", "pebble", "pepper", "petal", "piano", "pigeon", "pillow", "pilot", "pine", "planet",
    "plaza", "plum", "pocket", "poplar", "prism", "pulley", "quarry", "quartz", "quilt", "rabbit", "raft",
    "ranch", "raven", "reef", "ribbon", "ridge",
)  # fmt: skip
"""Second halves of function names, one token each for the embedded model."""

_SYLLABLES = [
    "ba", "cor", "den", "fal", "gim", "hol", "jur", "kes", "lun", "mav", "nis", "pol", "quo", "ras", "sut",
    "tev", "ulm", "vex", "wim", "zor",
]  # fmt: skip


def repository_name(rng: random.Random, *, for_training: bool = False) -> str:
    """A made-up name of three syllables.

    Names fall into two classes by their digest, one for evaluation and one for the embedded model's training corpus,
    so that no suite seed can ever give a repository that the model was trained on.
    """
    while True:
        name = "".join(rng.choice(_SYLLABLES) for _ in range(3))
        if is_training_name(name) == for_training:
            return name


def is_training_name(name: str) -> bool:
    """Whether this repository name belongs to the training corpus."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0
