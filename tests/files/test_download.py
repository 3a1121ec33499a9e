"""download.py against a small Hub on loopback."""

from __future__ import annotations

import os

import pytest

from helpers import REPOSITORY, Ran, run_command
from hub_server import Hub

MODEL = {
    "README.md": b"a card",
    "modeling_ovis2_5.py": b"raise SystemExit",
    "sa-iqa-prompt4/config.json": b"{}",
    "sa-iqa-prompt4/modeling_ovis2_5.py": b"raise SystemExit",
    "sa-iqa-prompt4/pytorch_model.bin": b"a pickle",
    "sa-iqa-prompt4/model-00001-of-00002.safetensors": bytes(range(256)) * 1000,
    "sa-iqa-prompt4/model-00002-of-00002.safetensors": b"second" * 1000,
    "Ovis2.5-9B/config.json": b"{}",
    "Ovis2.5-9B/model.safetensors": b"base",
}
DATA = {
    "README.md": b"a card",
    "annotations/lighting_3k_test.csv": b"id\n007\n",
    "images/lighting/images/007.jpg": b"a picture",
    "images/lighting/images/two words.jpg": b"another",
}


@pytest.fixture
def hub():
    repositories = {"models/gaoyuan-ai/SA-IQA-model": dict(MODEL), "datasets/gaoyuan-ai/SA-BENCH": dict(DATA)}
    with Hub(repositories) as running:
        yield running


def download(hub: Hub, tmp_path, *flags: str, endpoint: str = "", **env: str) -> Ran:
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint or hub.endpoint, "HF_HUB_OFFLINE": "0"}
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return run_command("download.py", *flags, "--output_dir", tmp_path / "here", env={**clean, **home, **env})


def files(tmp_path) -> set[str]:
    root = tmp_path / "here"
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {str(path) for path in found if ".cache" not in path.parts}


def test_a_model_without_code_pickles_and_other_folders(hub, tmp_path):
    ran = download(hub, tmp_path, "model")
    assert ran.code == 0, ran.err
    names = {"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert files(tmp_path) == {f"SA-IQA-model/sa-iqa-prompt4/{name}" for name in names}
    shard = "sa-iqa-prompt4/model-00001-of-00002.safetensors"
    assert (tmp_path / "here/SA-IQA-model" / shard).read_bytes() == MODEL[shard]
    assert "262.0 kB" in ran.err and "modeling_ovis2_5.py" in ran.err
    assert ran.out == f"next: python tools/download.py annotations --output_dir {tmp_path}/here\n"


def test_code_only_when_asked_for(hub, tmp_path):
    assert download(hub, tmp_path, "model", "--with_code").code == 0
    assert "SA-IQA-model/sa-iqa-prompt4/modeling_ovis2_5.py" in files(tmp_path)
    assert not any(name.endswith(".bin") for name in files(tmp_path))


def test_annotations_alone_and_then_the_rest(hub, tmp_path):
    ran = download(hub, tmp_path, "annotations", "model")
    assert ran.code == 0, ran.err
    assert {name for name in files(tmp_path) if name.startswith("SA-BENCH")} == {"SA-BENCH/annotations/lighting_3k_test.csv"}
    assert ran.out.startswith("next: python tools/score_images.py my_room.jpg --model_path ")
    hub.requests.clear()
    ran = download(hub, tmp_path, "data", "--json")
    assert (ran.code, ran.json["parts"]["data"]["files_fetched"]) == (0, 2)
    assert sorted(hub.fetched()) == ["images/lighting/images/007.jpg", "images/lighting/images/two words.jpg"]
    assert ran.json["next"].startswith("python tools/infer.py --model_path ")


def test_the_next_command_is_one_that_the_toolkit_has(hub, tmp_path):
    script, *flags = download(hub, tmp_path, "model", "annotations", "--json").json["next"].split()[1:]
    assert (REPOSITORY / script).is_file()
    ran = run_command(script.removeprefix("tools/"), *flags, cwd=tmp_path)
    assert "config.json cannot be used" in ran.err


def test_base_model_leads_to_training(hub, tmp_path):
    ran = download(hub, tmp_path, "base_model")
    assert ran.out.startswith("next: bash tools/train_sft.sh --prompt_version 4 --model ")


@pytest.mark.parametrize("owner", ["AliHome3D", "AliKunYu"])
def test_former_owners_are_asked_where_the_present_one_has_nothing(hub, tmp_path, owner):
    hub.repositories[f"models/{owner}/SA-IQA-model"] = hub.repositories.pop("models/gaoyuan-ai/SA-IQA-model")
    ran = download(hub, tmp_path, "model", "--json")
    assert (ran.code, ran.json["parts"]["model"]["repository"]) == (0, f"{owner}/SA-IQA-model")


def test_nobody_has_it(hub, tmp_path):
    del hub.repositories["models/gaoyuan-ai/SA-IQA-model"]
    ran = download(hub, tmp_path, "model")
    assert ran.code == 2
    assert "gaoyuan-ai/SA-IQA-model is not there, AliHome3D/SA-IQA-model is not there, AliKunYu/SA-IQA-model is" in ran.err
    assert "Traceback" not in ran.err
    ran = download(hub, tmp_path, "model", "--owner", "someone")
    assert ran.code == 2 and "someone/SA-IQA-model is not there. Check --owner" in ran.err


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (401, "")])
def test_gated_and_private_repositories(hub, tmp_path, status, code):
    hub.refusals["models/gaoyuan-ai/SA-IQA-model"] = (status, code)
    ran = download(hub, tmp_path, "model")
    assert ran.code == 2
    assert ("is gated" if code else "not there or private") in ran.err and "hf auth login" in ran.err
    assert "Traceback" not in ran.err


def test_files_of_a_gated_repository_whose_list_is_open(hub, tmp_path):
    hub.gated_files.add("models/gaoyuan-ai/SA-IQA-model")
    ran = download(hub, tmp_path, "model")
    assert ran.code == 2
    assert "gaoyuan-ai/SA-IQA-model is gated (403). Accept the conditions" in ran.err and "Traceback" not in ran.err


def test_a_repository_without_the_part(hub, tmp_path):
    ran = download(hub, tmp_path, "model", "--prompt_version", "2")
    assert ran.code == 2
    assert "has no folder sa-iqa-prompt2. It has Ovis2.5-9B, README.md" in ran.err


SHARD = "sa-iqa-prompt4/model-00001-of-00002.safetensors"
SAVED = 10 * 2**20  # huggingface_hub saves what it gets by 10 MiB


@pytest.fixture
def large_shard(hub) -> bytes:
    content = hub.repositories["models/gaoyuan-ai/SA-IQA-model"][SHARD] = bytes(range(256)) * 50_000
    return content


def ranges(hub: Hub) -> list[str | None]:
    return [asked for method, path, asked in hub.requests if method == "GET" and path.endswith(SHARD)]


def test_a_break_is_bridged(hub, tmp_path, large_shard):
    hub.cuts[SHARD] = [SAVED + 1000]
    assert download(hub, tmp_path, "model").code == 0
    assert (tmp_path / "here/SA-IQA-model" / SHARD).read_bytes() == large_shard
    assert ranges(hub) == [None, f"bytes={SAVED}-"]


def test_after_many_breaks_the_same_command_goes_on(hub, tmp_path, large_shard):
    hub.cuts[SHARD] = [SAVED + 1000, *[0] * 5]
    ran = download(hub, tmp_path, "model")
    assert ran.code == 1
    assert "peer closed connection" in ran.err and "Run the same command again" in ran.err and "Traceback" not in ran.err
    before = len(ranges(hub))
    ran = download(hub, tmp_path, "model")
    assert ran.code == 0 and "1 file to download, 2.3 MB" in ran.err
    assert (tmp_path / "here/SA-IQA-model" / SHARD).read_bytes() == large_shard
    assert ranges(hub)[before:] == [f"bytes={SAVED}-"]


def test_nothing_is_fetched_twice(hub, tmp_path):
    assert download(hub, tmp_path, "data").code == 0
    hub.requests.clear()
    ran = download(hub, tmp_path, "data")
    assert ran.code == 0 and "already complete" in ran.err
    assert hub.fetched() == []


def test_a_file_cut_short_on_the_disk_is_fetched_again(hub, tmp_path):
    assert download(hub, tmp_path, "model").code == 0
    shard = tmp_path / "here/SA-IQA-model/sa-iqa-prompt4/model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    ran = download(hub, tmp_path, "model", "--json")
    assert (ran.code, ran.json["parts"]["model"]["files_fetched"]) == (0, 1)
    assert shard.read_bytes() == MODEL["sa-iqa-prompt4/model-00002-of-00002.safetensors"]


def test_another_size_than_listed_is_an_error(hub, tmp_path):
    hub.short.add("sa-iqa-prompt4/config.json")
    ran = download(hub, tmp_path, "model")
    assert ran.code == 1
    assert "config.json has 2 bytes and should have 3" in ran.err


def test_dry_run_fetches_nothing(hub, tmp_path):
    ran = download(hub, tmp_path, "model", "data", "--dry_run", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["parts"]["model"]["bytes"] == 2 + 256_000 + 6_000
    assert files(tmp_path) == set() and hub.fetched() == []


def test_a_disk_that_is_too_small_is_refused_before_the_start(tmp_path):
    from saiqa.errors import Failed
    from saiqa.files import hub as hub

    remote = hub.Remote("a/b", "model", "0" * 40, [hub.RemoteFile("sa-iqa-prompt4/x.safetensors", 10**18)], [])
    with pytest.raises(Failed, match=r"1000000000\.0 GB are needed"):
        hub.check_space([hub.plan(remote, tmp_path / "here")])
    begun = tmp_path / "here/.cache/huggingface/download/sa-iqa-prompt4/x.safetensors.etag.incomplete"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"12345")
    assert hub.plan(remote, tmp_path / "here").bytes_needed == 10**18 - 5


def test_no_network(hub, tmp_path):
    ran = download(hub, tmp_path, "model", endpoint="http://127.0.0.1:9")
    assert ran.code == 1
    assert ran.err.startswith("download.py: error: cannot download from http://127.0.0.1:9: ")
    assert ran.err.count("\n") == 1 and "Connection refused" in ran.err
    ran = download(hub, tmp_path, "model", HF_HUB_OFFLINE="1")
    assert ran.code == 1 and "HF_HUB_OFFLINE is set. Unset it" in ran.err


def test_a_server_in_trouble(hub, tmp_path):
    hub.refusals["models/gaoyuan-ai/SA-IQA-model"] = (503, "")
    ran = download(hub, tmp_path, "model")
    assert ran.code == 1
    assert "the Hub answered 503" in ran.err and "Traceback" not in ran.err


def test_names_that_lead_out_of_the_folder_are_not_followed(hub, tmp_path):
    hub.repositories["models/gaoyuan-ai/SA-IQA-model"]["sa-iqa-prompt4/../../../escaped.json"] = b"{}"
    assert download(hub, tmp_path, "model").code == 0
    assert not (tmp_path / "escaped.json").exists()
    assert not any("escaped" in name for name in hub.fetched())
