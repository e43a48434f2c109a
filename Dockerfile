# The page on a CPU, without torch: docs/install.md
#   docker build -t clipkit .
#   docker run -e CLIPKIT_AUTH=ann:a-long-password -v ~/Pictures:/photos -p 7860:7860 clipkit
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 CLIPKIT_CACHE=/home/clipkit/cache
WORKDIR /src
COPY requirements-light.txt requirements-page.txt ./
RUN pip install --no-cache-dir -r requirements-page.txt
COPY pyproject.toml README.md LICENSE ./
COPY clipkit clipkit
COPY apps apps
COPY data data
RUN pip install --no-cache-dir --no-deps .

RUN useradd --create-home --uid 1000 clipkit \
    && mkdir /photos /home/clipkit/cache \
    && chown clipkit:clipkit /photos /home/clipkit/cache
USER 1000
WORKDIR /photos
VOLUME ["/photos", "/home/clipkit/cache"]
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/clipkit/static/page.css')"]
ENTRYPOINT ["clipkit"]
CMD ["ui", "/photos", "--host", "0.0.0.0", "--port", "7860"]
