# The service with exactly the packages that requirements.lock names, run by a user without rights.

FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/orderkeep
COPY requirements.lock ./
RUN /opt/orderkeep/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/orderkeep/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home orderkeep
COPY --from=build /opt/orderkeep /opt/orderkeep
ENV PATH=/opt/orderkeep/bin:$PATH PYTHONUNBUFFERED=1
USER orderkeep
WORKDIR /var/empty
EXPOSE 8080 8081
ENTRYPOINT ["orderkeep"]
