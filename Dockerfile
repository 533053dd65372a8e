# One image for every Emporium process: Airflow, MLflow, Spark master and worker, the commands.
# Built from the same hash-locked requirements as `make setup`. Not built by the project's CI, which has no engine.

# Spark's S3 client and its dependencies, with checksums.
FROM maven:3.9-eclipse-temurin-17 AS s3-jars
WORKDIR /build
COPY containers/s3-jars.xml pom.xml
RUN mvn -q -B -C dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=/jars

FROM python:3.12-slim-bookworm AS build
WORKDIR /opt/emporium
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
COPY requirements.txt ./
COPY containers/requirements.txt containers/
RUN python -m venv .venv \
 && awk '/^uv==/ {found = 1} found {print} found && !/\\$/ {exit}' requirements.txt > /tmp/uv.txt \
 && .venv/bin/python -m pip install --quiet --no-cache-dir --require-hashes --only-binary :all: -r /tmp/uv.txt \
 && .venv/bin/uv pip install --quiet --no-cache --python .venv/bin/python --require-hashes \
      -r requirements.txt -r containers/requirements.txt
COPY include include
ENV EMPORIUM_HOME=/tmp/home EMPORIUM_JARS=/opt/emporium/jars
RUN .venv/bin/python -m include.services.jars

FROM python:3.12-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends openjdk-17-jre-headless libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --create-home emporium \
 && install -d -o emporium -g emporium -m 0700 /var/lib/emporium /scratch
WORKDIR /opt/emporium
COPY --from=build /opt/emporium/.venv .venv
COPY --from=build /opt/emporium/jars jars
COPY --from=s3-jars /jars jars-s3
COPY . .
RUN .venv/bin/python -m compileall -q include dags spark_jobs ml_tasks expectations containers
ENV PATH=/opt/emporium/.venv/bin:$PATH \
    PYTHONPATH=/opt/emporium \
    PYTHONUNBUFFERED=1 \
    EMPORIUM_HOME=/var/lib/emporium \
    EMPORIUM_JARS=/opt/emporium/jars \
    SPARK_CONF_DIR=/opt/emporium/containers/spark \
    SPARK_LOCAL_DIRS=/scratch
USER emporium
ENTRYPOINT ["python", "containers/entrypoint.py"]
CMD ["python", "-m", "include.warehouse.migrate"]
