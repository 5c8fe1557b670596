"""What a task of the local stack finds imported already, so that it does not begin with seconds of imports."""

from __future__ import annotations

# Imported once, in a server process from which Airflow's executor forks its workers, and those their tasks. Under
# `preload_environ` none starts a thread, whose locks a fork would leave held for ever; tests/local/test_preload.py
# counts them. Never TensorFlow or Keras: a fork after TensorFlow deadlocks. Nor our own modules: the next task takes an
# edited one.
MODULES = (
    "airflow.cli.cli_parser",
    "airflow.executors.local_executor",
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "ai_edge_litert.interpreter",
    "boto3",
    "jinja2",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "numpy",
    "obstore.store",
    "pandas",  # PyArrow imports it as soon as it makes an array from a list
    "psycopg2.extras",
    "pyarrow.compute",
    "pyarrow.parquet",
    "scipy.special",
)


def preload_environ(platform: str) -> dict[str, str]:
    """Environment of Airflow's services that has tasks forked from a process with `MODULES`.

    Measured with ten photos on two busy cores: the seven tasks of a night take 3.6 s of CPU instead of 6.0 s
    (`python -m benchmarks fixed`); the first task after a start waits for the imports instead.

    Args:
        platform: as in ``sys.platform``; on others than Linux forks are not safe, and Airflow's own way stays.
    """
    if platform != "linux":
        return {}
    return {
        "AIRFLOW__SCHEDULER__MP_START_METHOD": "forkserver",
        "AIRFLOW__SCHEDULER__MP_FORKSERVER_PRELOAD": ",".join(MODULES),
        # Threads that NumPy and PyArrow would start as they are imported. Tasks multiply only small matrices.
        "OPENBLAS_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
    }
