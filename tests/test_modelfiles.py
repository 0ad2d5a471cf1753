"""Where a model's files lie: its own folder, or a commit on the hub that is kept to."""

import httpx2
import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants, errors
from PIL import Image

import tiny
from makers import mute
from parityalign.config.loading import LoadingSettings
from parityalign.config.run_yaml import load_config, read_config
from parityalign.core.errors import UserError, WorkFailed
from parityalign.data.hf_datasets import open_table
from parityalign.export.hub import check_push
from parityalign.models.checkpoint import INDEX, check_model_folder, commit_of, model_folder, published_files
from parityalign.models.open import fingerprint
from parityalign.pipeline import preflight
from parityalign.planning.sizes import Prompts
from parityalign.planning.sizing import place_of, prompt_sizes_of, size_of
from standin import serving

NAME, FILES = "someone/tiny", "/{repo_id}/resolve/{revision}/{filename}"
AS_IT_IS = LoadingSettings()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The files of a model."""
    return tiny.llava(tmp_path_factory.mktemp("published"))


@pytest.fixture
def hub(tmp_path, monkeypatch, published):
    """A hub with one model, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + FILES)
        hub.models[NAME] = {"main": published}
        yield hub


def gone(monkeypatch):
    """From here on the hub is out of reach."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def refusal(name=NAME, loading=AS_IT_IS):
    with pytest.raises(UserError) as refused:
        model_folder(name, loading, weights=True)
    return str(refused.value)


def test_the_files_of_a_model_are_fetched_and_the_weights_only_when_they_are_wanted(hub, published):
    small = model_folder(NAME, AS_IT_IS, weights=False)
    assert (small / "config.json").read_bytes() == (published / "config.json").read_bytes()
    assert not list(small.glob("*.safetensors"))
    whole = model_folder(NAME, AS_IT_IS, weights=True)
    assert (whole / "model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()


def test_a_commit_in_the_cache_needs_no_hub(hub, monkeypatch):
    pinned = LoadingSettings(commit=hub.commit(NAME))
    model_folder(NAME, pinned, weights=True)
    del hub.asked[:]
    gone(monkeypatch)
    assert list(model_folder(NAME, pinned, weights=True).glob("*.safetensors"))
    assert not hub.asked


def test_without_the_hub_a_branch_is_what_it_was_when_it_was_last_seen(hub, monkeypatch):
    commit = commit_of(NAME, AS_IT_IS)
    gone(monkeypatch)
    assert commit_of(NAME, AS_IT_IS) == commit == hub.commit(NAME)


def test_copies_for_other_programs_are_not_downloaded(hub, tmp_path):
    folder = tiny.llava(tmp_path / "more")
    (folder / "onnx").mkdir()
    for name in ("onnx/model.safetensors", "consolidated.safetensors", "model.fp16.safetensors", "code.py"):
        (folder / name).write_bytes(b"much")
    hub.models[NAME]["main"] = folder
    fetched = model_folder(NAME, AS_IT_IS, weights=True)
    assert [path.name for path in fetched.rglob("*.safetensors")] == ["model.safetensors"]
    assert not list(fetched.rglob("*.py"))
    assert "onnx/model.safetensors" in published_files(NAME, AS_IT_IS)


def test_a_gated_model_is_told_where_to_accept_and_how_to_log_in(hub):
    hub.gated.add(NAME)
    text = refusal()
    assert f"{NAME} is gated" in text and f"{hub.address}/{NAME}" in text and "hf auth login" in text


def test_a_model_that_is_not_on_the_hub_is_named(hub):
    assert "there is no model no/such on the hub" in refusal("no/such")


def test_a_revision_that_is_not_there_is_named(hub):
    assert f"{NAME} has no revision 'v9'" in refusal(loading=LoadingSettings(revision="v9"))


@pytest.mark.parametrize("name", ["a b/c", "-/x"])
def test_what_cannot_be_a_name_on_the_hub_is_refused_without_asking_it(hub, name):
    assert "is not the name of a model" in refusal(name)
    assert not hub.asked


def test_a_plan_that_is_made_offline_reads_a_model_in_the_cache_without_asking_the_hub(hub):
    model_folder(NAME, AS_IT_IS, weights=False)
    hub.asked.clear()
    place = place_of(NAME, AS_IT_IS, offline=True)
    assert (place.origin, place.published) == ("the hub's local cache", False)
    assert size_of(place, AS_IT_IS).parameters > 0
    picture = Image.new("RGB", (30, 20))
    assert prompt_sizes_of(place, AS_IT_IS, [picture], Prompts("a", "b", "c")).pictures == 1
    assert not hub.asked


@pytest.mark.parametrize("offline", [True, False])
def test_no_network_and_nothing_in_the_cache_says_how_to_do_without(hub, monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    text = refusal()
    assert "cannot be reached" in text and "hf download someone/tiny --local-dir" in text


def of_status(kind, status):
    request = httpx2.Request("GET", f"https://hub/{NAME}")
    return kind(f"{status} of the hub", response=httpx2.Response(status, request=request))


NO_WAY = [
    httpx2.ConnectError("no route"),
    httpx2.ConnectTimeout("slow"),
    httpx2.ReadError("cut off"),
    httpx2.ProxyError("407"),
    httpx2.TooManyRedirects("a portal"),
    httpx2.DecodingError("a portal's page"),
    ConnectionResetError("cut off"),
    TimeoutError("slow"),
    errors.OfflineModeIsEnabled("offline"),
    errors.RevisionResolutionError("nothing was seen"),
    errors.LocalEntryNotFoundError("not here"),
    errors.IncompleteSnapshotError("not whole", "/cache"),
    errors.CachedRepoTreeNotFoundError("no list"),
]
"""What huggingface_hub raises, from 2.0 on, where there is no way to the hub."""


def raising(problem):
    def call(*_, **__):
        raise problem

    return call


@pytest.mark.parametrize("problem", NO_WAY, ids=lambda problem: type(problem).__name__)
@pytest.mark.parametrize("call", ["HfApi.resolve_revision", "snapshot_download", "get_cached_repo_tree"])
def test_whatever_says_that_there_is_no_way_to_the_hub_is_one_error_in_words(hub, monkeypatch, call, problem):
    monkeypatch.setattr(f"huggingface_hub.{call}", raising(problem))
    with pytest.raises(UserError, match="the hub cannot be reached") as refused:
        published_files(NAME, AS_IT_IS)
    assert refused.value.exit_status == 2


@pytest.mark.parametrize("problem", NO_WAY, ids=lambda problem: type(problem).__name__)
def test_a_data_set_without_a_way_to_the_hub_is_one_error_in_words(monkeypatch, problem):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "get_dataset_split_names", raising(problem))
    with pytest.raises(UserError, match="cannot read the data set someone/pictures"):
        open_table("someone/pictures")


@pytest.mark.parametrize(
    "problem", [ValueError("Unknown scheme for proxy"), ImportError("Using SOCKS proxy")], ids=repr
)
def test_a_proxy_that_cannot_be_used_is_told_by_its_variable_whatever_the_hub_is_asked_for(hub, monkeypatch, problem):
    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("all_proxy", raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks://name:secret@localhost:1")
    monkeypatch.setattr("huggingface_hub.snapshot_download", raising(problem))
    monkeypatch.setattr("huggingface_hub.HfApi.resolve_revision", raising(problem))
    monkeypatch.setattr(datasets, "get_dataset_split_names", raising(problem))
    for ask in (
        lambda: published_files(NAME, AS_IT_IS),
        lambda: open_table("someone/pictures"),
        lambda: check_push("someone/student", public=False),
    ):
        with pytest.raises(UserError, match="ALL_PROXY names a proxy of the kind socks://") as refused:
            ask()
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("kind", [errors.HfHubHTTPError, errors.DisabledRepoError, errors.RemoteEntryNotFoundError])
def test_what_the_hub_itself_refuses_is_told_in_its_words(hub, monkeypatch, kind):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(of_status(kind, 503)))
    with pytest.raises(WorkFailed, match=f"the hub refuses the model {NAME}: 503 of the hub"):
        published_files(NAME, AS_IT_IS)


def test_a_download_that_was_cut_off_is_noticed_without_network(hub, monkeypatch):
    pinned = LoadingSettings(commit=hub.commit(NAME))
    model_folder(NAME, pinned, weights=False)
    gone(monkeypatch)
    assert "missing or incomplete" in refusal(loading=pinned)


@pytest.mark.parametrize(
    ("files", "lacking"),
    [
        ([], "config.json"),
        (["config.json", "model.safetensors", "tokenizer.json"], "processor"),
        (["config.json", "model.safetensors", "preprocessor_config.json"], "tokenizer"),
        (["config.json", "preprocessor_config.json", "tokenizer.json"], "safetensors"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_with_what_it_lacks(tmp_path, files, lacking):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"lacks.*{lacking}"):
        check_model_folder(str(tmp_path))


def test_pickled_weights_are_refused_and_named(tmp_path, hub):
    for name in ("config.json", "pytorch_model.bin", "processor_config.json", "tokenizer.json"):
        (tmp_path / "pickled" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "pickled" / name).write_text("{}")
    with pytest.raises(UserError, match=r"pickled only \(pytorch_model.bin\)"):
        check_model_folder(str(tmp_path / "pickled"))
    hub.models[NAME]["main"] = tmp_path / "pickled"
    assert "pickled only (pytorch_model.bin)" in refusal()


def test_a_missing_shard_is_named(tmp_path):
    for name in ("config.json", "processor_config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    with pytest.raises(UserError, match=r"lacks 1 of its files with weights, such as model-00002-of-00002"):
        check_model_folder(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_names_no_files_is_named_with_what_to_do(tmp_path, content):
    for name in ("config.json", "processor_config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(UserError, match=rf"{INDEX} is damaged(.|\n)*download it again"):
        check_model_folder(str(tmp_path))


@pytest.mark.parametrize("location", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_missing_folder_is_refused(location):
    with pytest.raises(UserError, match="missing"):
        check_model_folder(location)


def test_what_looks_like_a_hub_id_is_left_to_the_hub():
    check_model_folder("someone/some-model")


def begun(folder, **loading):
    """The configuration that a run works with, begun or resumed."""
    (folder / "pool").mkdir(exist_ok=True)
    said = {
        "run": "run",
        "teacher": f"hf:{NAME}",
        "student": f"hf:{NAME}",
        "tasks": {"textvqa": {"images": "pool"}},
        "loading": {"teacher": loading},
    }
    (folder / "RUN.yaml").write_text(yaml.safe_dump(said))
    with preflight.open_run_folder(load_config(folder / "RUN.yaml"), mute) as run:
        return run


def test_a_run_keeps_to_the_commit_that_it_began_with(hub, tmp_path, published):
    first = begun(tmp_path)
    assert read_config(tmp_path / "run" / "run.yaml").loading.teacher.commit == hub.commit(NAME)
    hub.models[NAME] = {"main": tiny.fast_vlm(tmp_path / "newer"), "old": published}
    assert begun(tmp_path).config == first.config
    again = read_config(tmp_path / "run" / "run.yaml")
    with preflight.open_run_folder(again, mute) as run:
        assert run.config == first.config
    # Another revision is asked for: the commit is found anew.
    assert begun(tmp_path, revision="main").config.loading.teacher.commit == hub.commit(NAME, "main")


def test_a_run_that_was_begun_needs_no_hub(hub, tmp_path, monkeypatch):
    begun(tmp_path)
    gone(monkeypatch)
    assert begun(tmp_path).models.teacher_fingerprint


def test_the_fingerprint_follows_the_commit_and_what_changes_numbers_and_nothing_else():
    one, two = (LoadingSettings(commit=digit * 40) for digit in "12")
    numbers = [{"dtype": "float16"}, {"quantise": "4bit"}, {"max_pixels": 9}]
    speed = [{"device_map": "auto"}, {"attention": "eager"}]
    seen = {fingerprint("hf:a/b", how) for how in (one, two, *(one.model_copy(update=more) for more in numbers))}
    assert len(seen) == 5
    assert {fingerprint("hf:a/b", one.model_copy(update=more)) for more in speed} == {fingerprint("hf:a/b", one)}
