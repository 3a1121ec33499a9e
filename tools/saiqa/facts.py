"""The toolkit's words and names in one place: dimensions, rating words, prompts, file names, addresses.

Imports nothing, so anything may import it: the commands' ``--help``, the shell launcher, the library.

The prompts are this project's own wording of the release's four versions. The sentences that the *released* checkpoint
was trained on are in its bundle (``query`` and ``response`` of its annotation files): wherever a record has them, they
are used instead of these. ``convert_csv_to_jsonl.py`` writes these unless told to take those of a folder.
"""

# Dimension -> the tag of its subset in file names. Every table uses this order.
DIMENSIONS = {"distortion": "2k", "harmony": "7k", "layout": "6k", "lighting": "3k"}
SUBSET_MAP = DIMENSIONS  # the release's name for it, which scripts around the release import

# Rating word -> its value on the scale of mean opinion scores, best first.
WORD_VALUES = {"excellent": 5, "good": 4, "fair": 3, "poor": 2, "bad": 1}
WORDS = tuple(WORD_VALUES)

# What a dimension means, in a few words, shown beside its scores. Higher is better for all of them.
MEANINGS = {
    "distortion": "how free of bent, melted or impossible things it is: higher is less distorted",
    "harmony": "how well colours, styles and pieces go together",
    "layout": "how well the pieces are placed, spaced and balanced",
    "lighting": "how well light and shadow show and shape the room",
}

HINTS = {"distortion": "higher is less"}  # shown beside a name that readers would take the other way round
SCALE = "scores go from 1 (bad) to 5 (excellent); " + ", ".join(f"{name}: {hint}" for name, hint in HINTS.items())

PROMPT_VERSIONS = (1, 2, 3, 4)
RECOMMENDED = 4

SPLITS = ("train", "test", "full")

# ---- prompts ---------------------------------------------------------------------------------------------------------

IMAGE_TAG = "<image>"

QUESTION = "Which of these levels describes the {dimension} quality of this picture: excellent, good, fair, poor or bad?"

# Version 3: what the dimension means for a picture of anything.
GENERAL_DEFINITIONS = {
    "distortion": (
        "Distortion quality tells how free a picture is of warped shapes, broken outlines and surfaces that look wrong."
    ),
    "harmony": "Harmony quality tells how well the colours, styles and parts of a picture go together.",
    "layout": "Layout quality tells how well the parts of a picture are placed, spaced and balanced.",
    "lighting": "Lighting quality tells how well the light and the shadows of a picture show and shape what is in it.",
}

# Version 4: what the dimension means for a picture of a room.
INTERIOR_DEFINITIONS = {
    "distortion": (
        "Distortion quality of an interior: furniture and fittings keep their true shape and stand where they belong, "
        "walls, windows, doors and ceilings line up, nothing is bent, melted or cut off, and wood, fabric, stone and "
        "metal look real."
    ),
    "harmony": (
        "Harmony quality of an interior: furniture, finishes and decoration share one style, the colours are tuned to "
        "each other, the room reads as a whole, and no single piece clashes with the rest."
    ),
    "layout": (
        "Layout quality of an interior: the main pieces are well spread, well positioned and neither too many nor too "
        "few, the eye finds order and balance, and the room can be walked through and used for its purpose."
    ),
    "lighting": (
        "Lighting quality of an interior: light and shadow are clean and well graded, daylight and lamps come from "
        "sources that make sense, and together they give the room depth and a mood."
    ),
}

# A rating word follows everything in front of "{word}", and "." follows the word.
ANSWER_TEMPLATE = "Judged by its {dimension}, this picture is {word}."


def query(dimension: str, version: int = RECOMMENDED) -> str:
    """The user turn for one dimension and prompt version, starting with ``<image>``.

    Version 1 is the question; 2 puts the tag ``<dimension>`` in front; 3 adds the general definition of the dimension;
    4 adds its definition for interiors instead. Raises ``KeyError`` for an unknown dimension or version.
    """
    question = QUESTION.format(dimension=_known(dimension))
    tagged = f"<{dimension}> {question}"
    texts = {
        1: question,
        2: tagged,
        3: f"{tagged} {GENERAL_DEFINITIONS[dimension]}",
        4: f"{tagged} {INTERIOR_DEFINITIONS[dimension]}",
    }
    return IMAGE_TAG + texts[version]


def response(dimension: str, word: str) -> str:
    """The whole answer for one dimension and rating word. Raises ``KeyError`` for an unknown word or dimension."""
    if word not in WORD_VALUES:
        raise KeyError(word)
    return ANSWER_TEMPLATE.format(dimension=_known(dimension), word=word)


def answer_prefix(dimension: str) -> str:
    """The answer up to the space before the rating word, without that space."""
    return ANSWER_TEMPLATE.partition("{word}")[0].format(dimension=_known(dimension)).rstrip()


def _known(dimension: str) -> str:
    if dimension not in DIMENSIONS:
        raise KeyError(dimension)
    return dimension


# ---- columns ---------------------------------------------------------------------------------------------------------

ID_COLUMN = "id"
GENERATOR_COLUMN = "model"  # the generator of the image; some tables have it
MOS_COLUMN = "{dimension}_score_mos"
PREDICTION_COLUMN = "score_pred"
REFERENCE_NAME = "reference.csv"  # in the demo's folder: its test rooms, scored
POOLED_COLUMNS = ("dimension", "id", "score_mos", "score_pred")


def mos_column(dimension: str) -> str:
    """The column of a dimension's mean opinion score, e.g. ``lighting_score_mos``."""
    return MOS_COLUMN.format(dimension=dimension)


def scored_columns(gt_column: str) -> tuple[str, str, str]:
    """The columns that a scored table has at least: id, mean opinion score, score of the model."""
    return ID_COLUMN, gt_column, PREDICTION_COLUMN


# ---- file and folder names -------------------------------------------------------------------------------------------

DATA_FOLDER = "SA-BENCH"
MODELS_FOLDER = "SA-IQA-model"
RESULTS_FOLDER = "results"
DEMO_FOLDER = "demo"
DEMO_TEST_PICTURES = "*_test_*.jpg"
DEMO_ROOMS_EACH = 3  # rooms per dimension in an installed package

ANNOTATIONS_FOLDER = "annotations"
IMAGES_FOLDER = "images/{dimension}/images"

ANNOTATION_STEM = "{dimension}_{subset}_{split}"
QUESTIONS_JSONL = "{stem}_prompt{version}.jsonl"
RESULT_STEM = "{dimension}_prompt{version}_{model_name}"
POOLED = "all"  # takes the place of the dimension in a result's name

BASE_MODEL_FOLDER = "Ovis2.5-9B"
DEMO_BASE_MODEL_FOLDER = "small-base"
TUNED_MODEL_FOLDER = "sa-iqa-prompt{version}"

# The picture formats that are read, by Pillow's names; the same for files, folders, URLs, the service and the page.
IMAGE_FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
IMAGE_FORMATS_TEXT = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC"
IMAGE_SUFFIXES = tuple(suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes)


def annotation_csv(dimension: str, split: str) -> str:
    """File name of a dimension's annotation table, e.g. ``lighting_3k_test.csv``."""
    return _annotation_stem(dimension, split) + ".csv"


def annotation_jsonl(dimension: str, split: str, version: int = RECOMMENDED) -> str:
    """File name of a dimension's questions and answers, e.g. ``lighting_3k_test_prompt4.jsonl``."""
    return QUESTIONS_JSONL.format(stem=_annotation_stem(dimension, split), version=version)


def _annotation_stem(dimension: str, split: str) -> str:
    return ANNOTATION_STEM.format(dimension=dimension, subset=DIMENSIONS[dimension], split=split)


def result_name(dimension: str, version: int, model_name: str, suffix: str) -> str:
    """File name of a result, e.g. ``lighting_prompt4_sa-iqa-prompt4.csv``; the merged table has ``POOLED``."""
    return RESULT_STEM.format(dimension=dimension, version=version, model_name=model_name) + suffix


def tuned_model(version: int = RECOMMENDED) -> str:
    """Folder name of the checkpoint tuned on a prompt version, e.g. ``sa-iqa-prompt4``."""
    return TUNED_MODEL_FOLDER.format(version=version)


# ---- addresses on the Hugging Face Hub -------------------------------------------------------------------------------

# The authors have moved the two repositories: the current owner first, the owner in their first README last. All are tried.
HUB_OWNERS = ("gaoyuan-ai", "AliHome3D", "AliKunYu")
HUB_REPOSITORIES = {MODELS_FOLDER: "model", DATA_FOLDER: "dataset"}


def download_command(*parts: str) -> str:
    """The command that downloads parts of the release (``model``, ``base_model``, ``annotations``, ``data``)."""
    return " ".join(("python tools/download.py", *parts))


def hub_command(folder: str, owner: str = HUB_OWNERS[0]) -> str:
    """The Hub's own command for all of ``SA-BENCH`` or ``SA-IQA-model``, run from the repository root."""
    return f"hf download {owner}/{folder} --repo-type {HUB_REPOSITORIES[folder]} --local-dir {folder}"
