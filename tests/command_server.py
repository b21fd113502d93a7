"""Runs commands, a JSON line each on stdin, in forks of one process that has imported everything.

A command then takes the time of its work, not the seconds of its imports, and still is a process,
with its own group, exit status and streams. The answer to a job is the process's id; the answer to
an id is the exit status with which it has ended.
"""

import gc
import importlib
import json
import logging
import multiprocessing.util
import os
import random
import resource
import signal
import sys
import time
import traceback
from typing import Any

import hydra
import torch.utils.tensorboard  # noqa: F401
from joblib.externals.loky import reusable_executor

import pixel_spotter.demo
import pixel_spotter.evaluate
import pixel_spotter.export
import pixel_spotter.locate
import pixel_spotter.predict
import pixel_spotter.report
import pixel_spotter.train  # noqa: F401
from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.cli.start import run_command
from pixel_spotter.training import measure


def run(job: dict[str, Any]) -> int:
    """Run a command as ``python -m`` does and return its exit status."""
    module = importlib.import_module(f"pixel_spotter.{job['command']}")
    sys.argv = [str(module.__file__), *job["arguments"]]
    try:
        run_command(job["command"], module.run)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def begin(job: dict[str, Any]) -> int:
    """Start a command, and return its process's id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    signal.alarm(150)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run behind
    os.chdir(job["cwd"])
    sys.path[0] = job["cwd"]  # as python -m has it
    for name in job["without"]:
        os.environ.pop(name, None)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, path in ((1, job["stdout"]), (2, job["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if job["fsize"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["fsize"], job["fsize"]))
    if job["clock_jumps"]:
        now, day_s = time.time, 86400.0
        time.time = lambda: now() + random.uniform(-3650, 3650) * day_s
    if not job["pictures"]:
        measure.run_pictures = lambda *_: {}
    code = run(job)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if reusable_executor._executor is not None:  # or the processes of a grid would linger
        reusable_executor._executor.terminate(kill_workers=True)
    multiprocessing.util._run_finalizers()  # what its threads still hold would be told as leaked
    os._exit(code)  # tearing down the copied interpreter would take seconds


with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
    hydra.compose("train")  # what Hydra looks for once, its plugins and its grammar, is found here
gc.collect()
gc.freeze()  # memory that no garbage collector touches is not copied by the forks
for line in sys.stdin:
    job = json.loads(line)
    if isinstance(job, int):
        _, status = os.waitpid(job, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    else:
        print(begin(job), flush=True)
