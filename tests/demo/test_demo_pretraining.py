"""The pretraining data of the demo's small base model: looks at pictures and their dense labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from make.learn import augment, lessons, miniature, room_data, study, teaching
from make.render import develop, faults, generator, labels, layout_faults, render_rooms
from make.render.rooms import Spoil
from saiqa import facts
from saiqa.engines import Request
from saiqa.engines.prefill_engine import PrefillEngine
from saiqa.model.ovis2_5 import image_to_patches

SIZE = (160, 224)
NO_ROOMS = np.zeros((0, 168, 224, 6), np.float16)


@pytest.fixture(scope="module")
def picture():
    name = next(iter(study.mean_opinions("layout", "train")))
    return np.array(Image.open(study.image_file("layout", name)).convert("RGB"))


def test_patches_are_cut_as_the_tower_is_fed(picture):
    image = Image.fromarray(picture).resize(SIZE[::-1])
    expected, grid = image_to_patches(image, miniature.BOUNDS, miniature.PREPROCESSING)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    cut = lessons._cut(values, 16)
    assert grid.tolist() == [[1, 10, 14]] and cut.shape == (1, 140, 768)
    assert torch.allclose(cut[0], expected, atol=1e-5)


def test_a_look_without_fault_or_crop_is_the_picture_itself(picture):
    places = np.random.default_rng(0).random((1, 42, 56, len(labels.CHANNELS))).astype(np.float16)
    looks = augment.Looks(picture[None], NO_ROOMS, places, (168, 224))
    everything = range(len(facts.DIMENSIONS))
    rng = np.random.default_rng(0)
    for _ in range(100):
        look = looks.draw(0, everything, rng)
        assert not look.qualities  # no fault is added to a picture with faults in all dimensions
        if abs(look.picture - torch.from_numpy(picture).permute(2, 0, 1) / 255).max() < 1e-3:
            assert np.allclose(looks.labels(0, look).permute(1, 2, 0), places[0].astype(float), atol=1e-3)
            break
    else:
        pytest.fail("no look was uncropped")


def test_faults_are_given_in_proportion_to_the_quality_that_is_told(picture):
    places = np.zeros((1, 42, 56, len(labels.CHANNELS)), np.float16)
    looks = augment.Looks(picture[None], NO_ROOMS, places, SIZE)
    stretch, quality = [], []
    rng = np.random.default_rng(1)
    for _ in range(200):
        look = looks.draw(0, [augment.LIGHTING], rng)
        known = looks.labels(0, look)
        if augment.DISTORTION in look.qualities:
            quality.append(look.qualities[augment.DISTORTION])
            stretch.append(known[labels.CHANNELS.index("stretch")].mean().item())
        else:
            assert known[-2:].abs().max() == 0
    assert -2 <= min(quality) < max(quality) <= 2
    assert np.corrcoef(stretch, quality)[0, 1] < -0.6


def test_a_room_whose_light_is_known_is_developed_as_the_renderer_does():
    rng = np.random.default_rng(0)
    room = generator.generate(5)
    light, albedo = rng.gamma(1.0, 1.0, (168, 224, 3)), rng.uniform(0.02, 0.9, (168, 224, 3))
    lit = np.concatenate([develop.exposed(room, light, 0.0), albedo], -1).astype(np.float16)[None]
    looks = augment.Looks(np.zeros((0, 168, 224, 3), np.uint8), lit, np.zeros((1, 42, 56, 1), np.float16), (168, 224))
    for kind in faults.DEVELOPED["lighting"]:
        for severity in (0.0, 0.7):
            spoilt = kind(room, severity, np.random.default_rng(1))
            expected = np.asarray(develop.develop(spoilt, light, np.zeros_like(light), albedo)) / 255
            developed = augment.developed(*np.split(looks.lit[0].astype(np.float32), 2, -1), spoilt.spoil)
            assert np.abs(developed - expected).max() < 0.01, kind.__name__


def test_faults_of_light_are_dialled_where_the_light_is_known(picture):
    lit = np.full((1, 168, 224, 6), 0.4, np.float16)
    places = np.zeros((2, 42, 56, len(labels.CHANNELS)), np.float16)
    looks = augment.Looks(picture[None], lit, places, SIZE)
    rng = np.random.default_rng(1)
    told = [[looks.draw(index, [], rng).qualities for _ in range(100)] for index in (0, 1)]
    ill_lit = [np.mean([augment.LIGHTING in qualities for qualities in drawn]) for drawn in told]
    assert ill_lit[0] == 0 and ill_lit[1] == pytest.approx(augment.ILL_LIT_SHARE, abs=0.15)
    assert not any(augment.LIGHTING in looks.draw(1, [augment.LIGHTING], rng).qualities for _ in range(50))


def test_a_picture_that_is_not_warped_is_stretched_nowhere():
    still = labels.warp_labels(*develop.sources(42, 56, Spoil(), np.random.default_rng(0)))
    assert np.allclose(still[..., 0], 0) and np.allclose(still[..., 1], np.log(1.05))
    swirled = labels.warp_labels(*develop.sources(42, 56, Spoil(warp=1.0), np.random.default_rng(0)))
    assert swirled[..., 0].max() > 0.5


def test_pieces_are_known_again_when_others_are_gone():
    room = generator.generate(5)
    rng = np.random.default_rng(3)
    assert labels._counterparts(room, room) == list(room.items)
    emptied = layout_faults.too_empty(room, 0.6, rng)
    assert 0 < len(emptied.items) < len(room.items)
    found = labels._counterparts(emptied, room)
    assert [(piece.model, piece.x, piece.z) for piece in found] == [(item.model, item.x, item.z) for item in emptied.items]
    crowded = layout_faults.too_full(room, 1.0, rng)
    assert labels._counterparts(crowded, room)[len(room.items) :] == [None] * (len(crowded.items) - len(room.items))


def test_what_is_wrong_with_a_piece_is_measured():
    piece = generator.generate(5).items[0]

    def measured(**changes):
        return dict(zip(labels.WRONG, labels._faults(replace(piece, **changes), piece, 0.0), strict=True))

    assert not any(measured().values())
    assert measured(tilt=-layout_faults.LARGEST_TILT)["moved"] == 1
    lifted = measured(y=piece.y + 0.7)
    assert lifted["raised"] == pytest.approx(0.7) and not any(value for name, value in lifted.items() if name != "raised")


def test_practice_rooms_have_any_number_of_faults_and_are_in_no_split():
    drawn = [render_rooms.describe_practice(render_rooms.SEED, index) for index in range(200)]
    faulty = np.array([[severity[dimension] > 0 for dimension in facts.DIMENSIONS] for _, severity in drawn])
    assert np.allclose(faulty.mean(0), [render_rooms.FAULTY_SHARE[name] for name in facts.DIMENSIONS], atol=0.12)
    assert set(faulty.sum(1)) == {0, 1, 2, 3, 4}
    for room, _ in drawn:  # faults of the development step are added later
        assert replace(room.spoil, stray=()) == Spoil()
    practised = {room.seed for room, _ in drawn}
    rated = {
        render_rooms.scene_seed(render_rooms.SEED, dimension, split, index)
        for dimension in facts.DIMENSIONS
        for split in (*render_rooms.SPLITS, render_rooms.SERIES)
        for index in range(600)
    }
    assert len(practised) == len(drawn) and not practised & rated


def test_practice_rooms_come_round_again_with_the_same_faults_at_other_severities():
    bent = []
    for index in range(40):
        (first, severities), (again, others) = (
            render_rooms.describe_practice(render_rooms.SEED, number)
            for number in (index, render_rooms.DIFFERENT_PRACTICE_ROOMS + index)
        )
        assert (first.seed, first.camera, first.windows) == (again.seed, again.camera, again.windows)
        assert severities != others or not any(severities.values())
        if len(first.items) == len(again.items):  # the kind of bend is drawn before its amount
            phases = [[piece.bend.phase if piece.bend else None for piece in room.items] for room in (first, again)]
            assert phases[0] == phases[1]
            bent.append(any(phases[0]))
    assert any(bent)


@pytest.fixture
def two_rooms(picture):
    """A fair picture and a poor practice room to learn from."""
    count = 2
    rng = np.random.default_rng(0)
    targets = np.zeros((count, 4), np.float32)
    targets[1] = -2
    return room_data.Rooms(
        pictures=picture[None],
        lit=rng.gamma(1.0, 0.3, (1, *picture.shape[:2], 6)).astype(np.float16),
        labels=rng.random((count, 42, 56, len(labels.CHANNELS))).astype(np.float16),
        targets=targets,
        weights=np.ones((count, 4), np.float32),
        rated=np.zeros(1, int),
        held_out=np.zeros(count, bool),
    )


@pytest.mark.slow
def test_pretraining_is_the_same_every_time(two_rooms):
    learned = []
    for _ in range(2):
        model = miniature.new_model(miniature.small_tokenizer())
        training = lessons.Pretraining(model, two_rooms)
        training.compile()
        teaching.pretrain(training, steps=2)
        teaching.teach_reading(training, miniature.small_tokenizer(), steps=2)
        learned.append(model.state_dict())
    assert all(values.isfinite().all() and torch.equal(values, learned[1][name]) for name, values in learned[0].items())


@pytest.mark.slow
def test_pretraining_makes_the_error_smaller(two_rooms):
    """A few steps of each of the two training tasks."""
    tokenizer = miniature.small_tokenizer()
    model = miniature.new_model(tokenizer)
    training = lessons.Pretraining(model, two_rooms)
    for lesson in (training, lessons.Reading(training, tokenizer)):
        optimizer = torch.optim.AdamW([*model.parameters(), *training.probes.parameters()], lr=1e-3)
        errors = []
        for _ in range(12):
            error, _ = lesson.error(*lesson.batch())
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.item())
        assert np.mean(errors[-3:]) < 0.7 * np.mean(errors[:3])


def test_questions_are_put_as_the_engine_puts_them(two_rooms, tmp_path):
    tokenizer = miniature.small_tokenizer()
    model = miniature.new_model(tokenizer)
    reading = lessons.Reading(lessons.Pretraining(model, two_rooms), tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = PrefillEngine(tmp_path, device="cpu")
    image = Image.fromarray(two_rooms.pictures[0])
    for column, dimension in enumerate(facts.DIMENSIONS):
        for version, (question, start, end) in zip(facts.PROMPT_VERSIONS, reading.questions[column], strict=True):
            (row,) = engine.rows([Request(image, facts.query(dimension, version), facts.answer_prefix(dimension))])
            assert [*question, *start] == [*row.prefix, *row.questions[0].suffix]
            assert tokenizer.decode(end) == ".<|im_end|>"
    _, ids, written, places, quality = reading.batch()
    for line, place in enumerate(places):
        word = reading.words.tolist().index(ids[line, place].item())
        assert abs(reading.values[word] - quality[line]) <= 0.5 + 1e-6
        assert written[line, place] == -100 and (written[line, place + 1] == ids[line, place + 1])
