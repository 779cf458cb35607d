# keyctl in a container: built from the wheel, run by an account that is not root.
#
#   docker build -t registry.example.com/keyctl:1 .
#   docker run --rm --read-only -v keyctl:/var/lib/keyctl registry.example.com/keyctl:1 list
FROM python:3.13-slim AS build
COPY . /source
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels "/source[postgres,vault,aws,kubernetes]"

FROM python:3.13-slim
RUN --mount=from=build,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-compile /wheels/*.whl \
    && python -m compileall -q "$(python -c 'import keyctl, os; print(os.path.dirname(keyctl.__file__))')" \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/keyctl
# What keyctl writes lies here: the embedded database, and the lock files of its runs.
ENV HOME=/var/lib/keyctl \
    XDG_DATA_HOME=/var/lib/keyctl \
    XDG_STATE_HOME=/var/lib/keyctl \
    PYTHONDONTWRITEBYTECODE=1
VOLUME /var/lib/keyctl
WORKDIR /var/lib/keyctl
USER 10001:10001
# No shell: keyctl is process 1, and obeys SIGTERM there.
ENTRYPOINT ["keyctl"]
CMD ["--help"]
