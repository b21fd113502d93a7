import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, CommandServer, Run, compose, finish, read_json, start
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from PIL import Image

from pixel_spotter import runs
from pixel_spotter.cli.begin import begun
from pixel_spotter.cli.help import CONF_DIR, known_settings
from pixel_spotter.cli.mistakes import refuse_unknown_settings, user_message
from pixel_spotter.cli.start import _interrupted, in_order, pick_device, text_as_it_is
from pixel_spotter.errors import UserError
from pixel_spotter.train import _TRAINED_ONLY

MISTAKES = [
    ("train", "model=transformer", "model/transformer"),
    ("train", "colour=red", "colour"),
    ("train", "data.colour=red", "colour"),
    ("train", "model.depth=3", "depth"),
    ("train", "+model.depth=3", "no setting model.depth"),
    ("train", "model", "model"),
    ("train", "model.channels=[4,", "[4,"),
    ("train", "optim.lr=-1", "learning rate"),
    ("train", "optim.lr=nan", "learning rate"),
    ("train", "data.test_fraction=0.95", "no position for train"),
    ("train", "data.val_fraction=2", "data.val_fraction"),
    ("train", "data.image_size=2", "data.image_size"),
    ("train", "data.image_size=[16,16,3]", "image_size"),
    ("train", "data.image_size=16.5", "image_size"),
    ("train", "data.split=random", "data.split"),
    ("train", "data.batch_size=0", "data.batch_size"),
    ("train", "data.num_workers=-1", "data.num_workers"),
    ("train", "model.channels=8", "model"),
    ("train", "model.dropout=1.5", "model.dropout"),
    ("train", "seed=abc", "seed"),
    ("train", "trainer.max_epochs=2.5", "trainer.max_epochs"),
    ("train", "trainer.precision=64-true", "precision"),
    ("train", "trainer=cpu trainer.precision=16-mixed", "cannot be had on a CPU"),
    ("train", "trainer.accelerator=abacus", "abacus"),
    ("train", "trainer.devices=0", "devices"),
    ("train", "early_stopping.patience=long", "patience"),
    ("train", "scheduler.T_max=0", "scheduler"),
    ("train", "model=resnet18_scratch model.channels=null ~model.hidden", "channels"),
    # accepted and not used, in 0.1
    ("train", "+lr=0.1", "did you mean optim.lr?"),
    ("train", "lr=0.1", "did you mean optim.lr?"),
    ("train", "modle=cnn", "did you mean model=?"),
    ("train", "+ckpt_path=nowhere.ckpt", "no setting ckpt_path"),
    ("train", "+trainer.logger=false", "did you mean logger=?"),
    ("train", "+trainer.callbacks=null", "trainer.callbacks is not for use here"),
    ("train", "+optim.lr=0.1", "leave out the +"),
    ("train", "+data.imagesize=16", "did you mean data.image_size?"),
    ("evaluate", "checkpoint=BEST +seed=3", "did you mean data.seed?"),
    ("predict", "checkpoint=BEST images=image.png +batchsize=3", "did you mean batch_size?"),
    ("report", "sweep=x +name=y", "no setting name"),
    # found after the training, in 0.1
    ("train", "trainer.max_steps=5", "trainer.max_steps is not for use here"),
    ("train", "+trainer.limit_val_batches=0", "trainer.limit_val_batches is not for use here"),
    # text where there should be a number
    ("train", "optim.lr=abc", "optim.lr must be float"),
    ("train", "+optim.betas=[a,b]", "optim.betas must be"),
    ("train", "start_from=nowhere.ckpt", "there is no file nowhere.ckpt"),
    ("train", "model=closed_form", "model.estimator is missing"),
    ("train", "model=closed_form model.estimator=guess", "argmax, centre_of_mass"),
    ("train", "model=ensemble model.member.channels=4", "model.member.channels must be"),
    ("train", "name=../elsewhere", "name=../elsewhere"),
    ("train", "model=svm model.blur_px=1 start_from=BEST", "svm is solved, not trained"),
    ("train", "+early_stopping.foo=1", "no setting early_stopping.foo"),
    ("train", "+logger.save_dir=elsewhere", "logger.save_dir is not for use here"),
    ("train", "logger=null", "needs one of its choices"),
    ("train", "+trainer.min_epochs=3", "trainer.min_epochs must be at most trainer.max_epochs"),
    ("train", "+trainer.accumulate_grad_batches=0", "accumulate_grad_batches must be a whole"),
    ("train", "early_stopping.min_delta=0.1", "of no use without early_stopping.patience"),
    ("train", "+trainer.gradient_clip_algorithm=norm", "no use without trainer.gradient_clip_val"),
    ("train", "--foo", "no option --foo: settings are written KEY=VALUE"),
    ("train", "seed=1 --cfg", "expected one argument"),
    ("train", "--cfg everything", "invalid choice"),
    ("train", "model=heatmap model.foo=1", "no setting model.foo; pixel-spotter train --help"),
    ("train", "model=cnn model.chanels=1", "did you mean model.channels?"),
    ("train", "model=cnn model.beta=1", "no setting model.beta; pixel-spotter train --help"),
    ("train", "data.noize=1", "no setting data.noize; pixel-spotter train --help lists them"),
    ("train", "data.noise=1", "no setting data.noise in what is chosen here"),
    ("train", "camera=scmos", "camera comes with data=spots: add that"),
    ("train", "psf=measured", "psf comes with data=spots: add that"),
    ("train", "camera.gain=2", "camera.gain comes with data=spots: add that"),
    ("train", "data=spots camera.gian=2", "did you mean camera.gain?"),
    ("evaluate", "checkpoint=BEST camera=scmos", "no setting camera"),
    ("train", "~scheduler", "scheduler is needed: leave out ~scheduler"),
    ("train", "~trainer.precision", "trainer.precision is needed: leave out ~trainer.precision"),
    ("train", "~early_stopping", "early_stopping is needed"),
    ("train", "+optim.foo=3", "no setting optim.foo"),
    ("train", "trust=1e3", "trust=1e3: there is no such module"),
    ("train", "name=${seed}", "cannot be a folder's name"),
    ("train", "trust=nothing.there", "trust=nothing.there: there is no such module"),
    ("train", "trust=[a..b]", "trust=a..b: there is no such module"),
    ("train", "trust=null", "trust=None: there is no such module"),
    ("predict", "checkpoint=BEST images=image.png trust=5", "trust=5: there is no such module"),
    ("train", "+hydra.job.foo=1", "no setting hydra.job.foo"),
    ("predict", "checkpoint=BEST images=~nobody.there/x.png", "whom this machine does not know"),
    ("evaluate", "checkpoint=BEST trainer.max_epochs=3", "trainer.max_epochs is for training"),
    ("evaluate", "checkpoint=BEST +data.train_samples=2", "data.train_samples is for training"),
    ("evaluate", "", "checkpoint is missing"),
    ("evaluate", "checkpoint=missing.ckpt", "there is no file missing.ckpt"),
    ("evaluate", "checkpoint=BEST data.split=random", "data.split"),
    ("evaluate", "checkpoint=BEST data.image_size=20", "image_size"),
    *(
        ("evaluate", f"checkpoint=BEST {setting}", "is for training: leave it out")
        for setting in (
            *("+trainer.min_epochs=3", "+trainer.gradient_clip_val=3"),
            *("+trainer.accumulate_grad_batches=3", "trainer.num_sanity_val_steps=2"),
            "+trainer.sync_batchnorm=true",
        )
    ),
    *(
        ("train", setting, "is for a grid, which pixel-spotter train --multirun is")
        for setting in ("+hydra.sweeper.n_trials=3", "hydra.sweep.dir=x", "hydra/launcher=joblib")
    ),
    ("train", "trainer.gradient_clip_val=1.0", "with a plus, +trainer.gradient_clip_val=..."),
    ("evaluate", "checkpoint=BEST trainer.benchmark=true", "with a plus, +trainer.benchmark=..."),
    ("evaluate", "checkpoint=BEST trainer.precision=16-true", "would round coordinates"),
    ("evaluate", "checkpoint=BEST trainer=cpu trainer.devices=50000", "this machine has"),
    ("train", "trainer.devices=50000 trainer.fast_dev_run=true", "this machine has"),
    ("predict", "", "missing"),
    ("predict", "checkpoint=missing.ckpt images=image.png", "there is no file missing.ckpt"),
]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")


def arguments(command: str, mistake: str, run: Run) -> list[str]:
    given = [str(word).replace("BEST", str(run.best)) for word in mistake.split()]
    if command == "train":
        chosen = {word.partition("=")[0] for word in given}
        tiny = [word for word in TINY if word.partition("=")[0] not in chosen]
        if "model" in chosen:
            tiny = [word for word in tiny if not word.startswith("model.")]
        given = [*tiny, *given]
    return given


@pytest.mark.parametrize(("command", "mistake", "says"), MISTAKES)
def test_a_mistake_ends_in_one_line(
    command: str, mistake: str, says: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(tmp_path / "image.png")
    ended = run_command(command, *arguments(command, mistake, tiny_run), cwd=tmp_path)
    message = ended.error()
    assert says in message
    assert len(message) < 600
    assert not list(tmp_path.glob("outputs/*/*"))


@NO_GPU
@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("train", "trainer=gpu"),
        ("evaluate", "checkpoint=BEST trainer=gpu"),
        ("predict", "checkpoint=BEST images=image.png device=cuda"),
    ],
)
def test_a_gpu_that_is_not_there(
    command: str, mistake: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(tmp_path / "image.png")
    ended = run_command(command, *arguments(command, mistake, tiny_run), cwd=tmp_path)
    message = ended.error().lower()
    assert "gpu" in message or "cuda" in message


def test_a_mistake_as_its_user_meets_it(tmp_path: Path) -> None:
    """In a process of its own: the server above must not be what makes the line."""
    ended = finish(start("train", *TINY, "optim.lr=-1", cwd=tmp_path))
    assert ended.error() == "optim or scheduler: Invalid learning rate: -1"
    assert ended.code == 1


def test_a_run_as_its_user_meets_it(run_command: CommandServer, tmp_path: Path) -> None:
    ended = run_command("train", *TINY, "name=mine", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    folder = tmp_path / "outputs/runs/mine"
    metrics = read_json(folder / "metrics.json")
    assert f"{metrics['test/mean_error_px']:.3f} px" in ended.stdout
    assert "none of them seen in training" in ended.stdout
    assert str(folder / "checkpoints/best.ckpt") in ended.stdout
    assert "Warning" not in ended.stderr, ended.stderr
    for name in ("config", "hydra", "overrides"):
        assert (folder / f".hydra/{name}.yaml").is_file()
    assert (folder / "train.log").stat().st_size > 0

    stamp = (folder / "metrics.json").stat().st_mtime_ns
    again = run_command("train", *TINY, "name=mine", cwd=tmp_path)
    assert again.code == 0, again.stderr
    assert (folder / "metrics.json").stat().st_mtime_ns == stamp

    config = (folder / ".hydra/config.yaml").read_bytes()
    other = run_command("train", *TINY, "name=mine", "model.dropout=0.25", cwd=tmp_path)
    assert "model.dropout" in other.error()
    assert (folder / ".hydra/config.yaml").read_bytes() == config


def test_a_mistake_removes_its_own_folder_only(run_command: CommandServer, tmp_path: Path) -> None:
    folder, mistake = tmp_path / "outputs/runs/mine", [*TINY, "name=mine", "optim.lr=-1"]
    with runs.owned(folder):  # another process has just begun
        assert "another process" in run_command("train", *mistake, cwd=tmp_path).error()
        assert folder.is_dir()
    run_command("train", *mistake, cwd=tmp_path).error()
    assert not folder.exists()
    folder.mkdir()
    (folder / "notes.txt").write_text("kept")
    run_command("train", *mistake, cwd=tmp_path).error()
    assert (folder / "notes.txt").exists()
    corrected = run_command("train", *TINY, "name=mine", cwd=tmp_path)
    assert corrected.code == 0, corrected.stderr


def test_nothing_writable(run_command: CommandServer, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    ended = run_command("train", *TINY, cwd=tmp_path)
    assert "outputs" in ended.error()


def test_what_its_user_can_put_right() -> None:
    assert user_message(UserError("one\n  two")) == "one two"
    assert user_message(FileNotFoundError(2, "No such file", "x.csv")) == "x.csv: No such file"
    assert "strange" in str(user_message(OSError("strange")))
    assert "out of memory" in str(user_message(torch.OutOfMemoryError("CUDA")))
    assert user_message(HydraException("no such choice")) == "no such choice"
    missing = MissingMandatoryValue("Missing mandatory value: images")
    assert user_message(missing) is not None


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), AssertionError(), TypeError()])
def test_what_is_a_bug(error: Exception) -> None:
    assert user_message(error) is None


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="device=toaster"):
        pick_device("toaster")


def test_the_configs_are_found() -> None:
    assert (CONF_DIR / "train.yaml").is_file()


@pytest.mark.parametrize(
    ("argument", "read"),
    [
        ("name=2026_11_24", "name='2026_11_24'"),
        ("name=1e3", "name='1e3'"),
        ("name=true", "name='true'"),
        ("name=null", "name='null'"),
        ("name=a,b", "name='a,b'"),
        ("name='quoted'", "name='quoted'"),
        ("++name=1e4", "++name='1e4'"),
        ("output=null", "output=null"),
        ("optim.lr=1e3", "optim.lr=1e3"),
        ("--multirun", "--multirun"),
        ("model.weights=1e3", "model.weights='1e3'"),
        ("model.weights=null", "model.weights=null"),
        ("model.checkpoint=outputs/runs/a/best.ckpt", "model.checkpoint=outputs/runs/a/best.ckpt"),
        ("model.checkpoint=seed=0,a.ckpt", "model.checkpoint='seed=0,a.ckpt'"),
        ("model.checkpoints=[2026/a.ckpt,b.ckpt]", "model.checkpoints=['2026/a.ckpt',b.ckpt]"),
        ("model.checkpoints=['a','b']", "model.checkpoints=['a','b']"),
        ("psf.file=${conf_file:psf/coma.npy}", "psf.file=${conf_file:psf/coma.npy}"),
        ("psf.file=my psf.npy", "psf.file='my psf.npy'"),
        ("trust=1e3", "trust='1e3'"),
        ("trust=[]", "trust=[]"),
        ("camera.read_noise=1.6", "camera.read_noise=1.6"),
        ("~model.hidden", "~model.hidden"),
    ],
)
def test_names_and_paths_are_text(argument: str, read: str) -> None:
    assert text_as_it_is(argument) == read


@pytest.mark.parametrize(
    "given",
    [
        ["a=1", "--multirun", "b=2", "--config-dir", "c", "start_from=x,y"],
        ["-m", "a=1", "b=2", "--config-dir=c", "start_from=x,y"],
    ],
)
def test_options_may_stand_anywhere(given: list[str]) -> None:
    options = [word for word in given if "=" not in word or word[0] == "-" or word == "c"]
    assert in_order(given) == [*options, "a=1", "b=2", "start_from='x','y'"]


def taken_as_it_is(name: str) -> bool:
    """Not quoted already, none, or somewhere in a home."""
    quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
    return not quoted and name not in ("", "null") and name[0] != "~"


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"))


@given(NAMES.filter(taken_as_it_is))
@example("007")
@example("'quoted'.png")
@example('"quoted".png')
@example("[a]")
@example("two words, a=b.png")
@example("${x}.png")
@example("trailing\\")
@example("q\\'x.png")
@example("#1.png")
@example(" leading.png")
def test_whatever_is_in_a_text_hydra_reads_it_as_it_is(name: str) -> None:
    (read,) = OverridesParser.create().parse_overrides([text_as_it_is(f"images={name}")])
    assert OmegaConf.create({"images": read.value()}).images == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "../elsewhere", "/elsewhere", "a/../..", "'..'", "~", "~/x", "${seed}", "a${x}"],
)
def test_what_cannot_be_a_folders_name(name: str) -> None:
    with pytest.raises(UserError, match="choose another"):
        text_as_it_is(f"name={name}")


@pytest.mark.parametrize("name", ["2026_11_24", "null", "it's, me"])
def test_a_run_has_the_name_it_was_given(
    name: str, run_command: CommandServer, tmp_path: Path
) -> None:
    quick = ["trainer=cpu", "model=argmax", "data.image_size=16"]
    ended = run_command("train", *quick, f"name={name}", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert [path.name for path in (tmp_path / "outputs/runs").iterdir()] == [name]


def test_home_is_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/at/home")
    assert text_as_it_is("output=~/found.csv") == "output='/at/home/found.csv'"
    assert text_as_it_is("checkpoint=~/a.ckpt") == "checkpoint='/at/home/a.ckpt'"
    assert text_as_it_is("images=~") == "images='/at/home'"
    assert text_as_it_is("model.weights=~/w.pth") == "model.weights='/at/home/w.pth'"
    assert text_as_it_is("psf.file=~/p.npy") == "psf.file='/at/home/p.npy'"
    assert text_as_it_is("camera.gain=~/g.npy") == "camera.gain='/at/home/g.npy'"
    listed = text_as_it_is("model.checkpoints=[~/a.ckpt,b.ckpt]")
    assert listed == "model.checkpoints=['/at/home/a.ckpt',b.ckpt]"
    assert text_as_it_is("images=~friend.png") == "images='~friend.png'"
    root = Path("~root").expanduser()
    assert text_as_it_is("output=~root/x.csv") == f"output='{root}/x.csv'"
    with pytest.raises(RuntimeError, match="home directory"):
        text_as_it_is("output=~nobody.there/x.csv")


@pytest.mark.parametrize(
    ("argument", "read"),
    [
        ("start_from=a.ckpt,b.ckpt", "start_from='a.ckpt','b.ckpt'"),
        ("start_from=null,~/b.ckpt", "start_from=null,'/at/home/b.ckpt'"),
        ("start_from=it.ckpt", "start_from='it.ckpt'"),
        ("start_from='a,b.ckpt'", "start_from='a,b.ckpt'"),
        ("model.weights=null,~/w.pth", "model.weights=null,'/at/home/w.pth'"),
        ("model.checkpoints=[a,b],[c,d]", "model.checkpoints=[a,b],[c,d]"),
        ("start_from='a.ckpt','b.ckpt'", "start_from='a.ckpt','b.ckpt'"),
        ("name=a,b", "name='a,b'"),
    ],
)
def test_commas_sweep_over_checkpoints_in_a_grid(
    argument: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/at/home")
    assert text_as_it_is(argument, multirun=True) == read


@pytest.mark.parametrize("unused", ["optim.lr=0.1", "optim=adam", "+trainer.gradient_clip_val=1"])
def test_what_a_solved_model_does_not_use(
    unused: str, run_command: CommandServer, tmp_path: Path
) -> None:
    solved = ["trainer=cpu", "model=argmax", "data.image_size=16", unused]
    key = unused.partition("=")[0].lstrip("+")
    ended = run_command("train", *solved, cwd=tmp_path)
    assert ended.error() == f"argmax is solved, not trained: leave out {key}"
    if unused == "optim.lr=0.1":  # in a grid it may be for the other models
        ended = run_command("train", "--multirun", *solved, cwd=tmp_path)
        assert ended.code == 0, ended.stderr


@pytest.mark.parametrize(
    "key",
    ["scheduler", "scheduler.T_max", "early_stopping.patience"]
    + [f"trainer.{name}" for name in ("max_epochs", "min_epochs", "accumulate_grad_batches")],
)
def test_what_else_is_for_training_only(key: str) -> None:
    assert _TRAINED_ONLY.match(key)


@pytest.mark.parametrize("key", ["data.split", "trainer.max_time", "trainer.precision", "seed"])
def test_what_a_solved_model_uses_too(key: str) -> None:
    assert not _TRAINED_ONLY.match(key)


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed(
    package: str, run_command: CommandServer, tmp_path: Path
) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip("it is installed")
    ended = run_command("train", *TINY, f"logger={package}", cwd=tmp_path)
    assert ended.error() == f"{package} is not installed: pip install 'pixel-spotter[{package}]'"


def test_an_interrupted_job_of_a_grid_names_the_grid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A launcher's job is a process of its own, which knows of the grid from Hydra only."""
    monkeypatch.setattr(sys, "argv", ["_submit.py", ".submitit/7"])
    words = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=outputs/sweeps/mygrid"]
    words += ["hydra.runtime.output_dir=outputs/sweeps/mygrid/seed0"]
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", words, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    with pytest.raises(SystemExit):
        _interrupted("train")
    assert capsys.readouterr().err == ("interrupted: the same command with name=mygrid continues\n")


def test_a_value_written_once_and_used_elsewhere_is_a_setting() -> None:
    used = compose(["+shared=8", "model=cnn", "model.hidden=[${shared}]"])
    assert refuse_unknown_settings(used, "train").model.hidden == [8]
    with pytest.raises(UserError, match="no setting shared"):
        refuse_unknown_settings(compose(["+shared=8", "model=cnn"]), "train")


def test_every_setting_that_is_written_down_is_known() -> None:
    settings = {*known_settings("train")}
    for expected in ("model", "model.channels", "model.kernel", "optim.lr", "logger.project"):
        assert expected in settings
    assert "seed" in settings
    assert not [name for name in settings if "_target_" in name or name.startswith("hydra")]


def test_a_killed_process_of_a_grid_is_no_bug() -> None:
    class TerminatedWorkerError(Exception):
        """As joblib's is called."""

    assert "the same command continues" in str(user_message(TerminatedWorkerError()))


def test_interrupted_by_its_user(run_command: CommandServer, tmp_path: Path) -> None:
    """In the fit, where Lightning would end with status 1."""
    begun = run_command.begin(
        "train", *TINY, "trainer.max_epochs=100000", "name=long", cwd=tmp_path
    )
    begun.wait_for((tmp_path / "outputs/runs/long/epochs.csv").exists)
    begun.kill(signal.SIGINT)
    ended = begun.finish()
    assert ended.code == 130, ended.stderr
    assert "interrupted: the same command continues" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_sigterm_is_an_interruption() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        begun()
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("form", [["-m", "pixel_spotter.train"], ["-m", "pixel_spotter", "train"]])
def test_interrupted_while_it_is_imported(form: list[str], tmp_path: Path) -> None:
    """By a module that stands in for torch."""
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ended = subprocess.run(
        [sys.executable, *form],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


@pytest.mark.skipif(sys.platform != "linux", reason="another library shares the work elsewhere")
@pytest.mark.parametrize(
    ("own", "turns"), [({}, "10000"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")]
)
def test_threads_that_wait_leave_their_core_soon(own: dict[str, str], turns: str) -> None:
    """Told by the library itself, which PyTorch loads."""
    left = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in left}
    ended = subprocess.run(
        [sys.executable, "-m", "pixel_spotter.locate", "images=nothing"],
        env={**environment, "OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT), **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"GOMP_SPINCOUNT = '{turns}'" in ended.stderr
