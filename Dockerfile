# syntax=docker/dockerfile:1
# The production image: Airflow's official one, and beside its own Python packages an environment of exactly what the
# lock files say. The project runs from that environment alone; the base gives Python, entrypoint, user and folders.

FROM apache/airflow:slim-3.3.2-python3.11 AS build

USER root
RUN install -d -o airflow -g 0 /opt/refund /src
USER airflow
ENV PIP_USER=false PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/refund/venv

WORKDIR /src
# The locks change seldom, so their layers come first.
COPY --chown=airflow:0 requirements.txt requirements-production.txt ./
RUN /opt/refund/venv/bin/python -m pip install --require-hashes -r requirements.txt
RUN /opt/refund/venv/bin/python -m pip install --require-hashes -r requirements-production.txt

COPY --chown=airflow:0 pyproject.toml README.md LICENSE ./
COPY --chown=airflow:0 plugins ./plugins
COPY --chown=airflow:0 include ./include
RUN /opt/refund/venv/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/refund/venv/bin/python -m pip install --no-deps dist/*.whl \
 && /opt/refund/venv/bin/python -m pip check

FROM apache/airflow:slim-3.3.2-python3.11

COPY --from=build --chown=airflow:0 /opt/refund/venv /opt/refund/venv
COPY --chown=airflow:0 dags /opt/refund/dags
COPY --chown=airflow:0 deploy /opt/refund/deploy
ENV PATH=/opt/refund/venv/bin:$PATH \
    PIP_USER=false \
    VIRTUAL_ENV=/opt/refund/venv \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/refund/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
# A named volume takes owner and rights of the folder that it is mounted over.
RUN mkdir -p /opt/airflow/logs /opt/airflow/plugins /tmp/refund-cache && airflow version && refund --version
USER airflow
WORKDIR /opt/airflow
