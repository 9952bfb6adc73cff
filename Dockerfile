# sk-momkd on CPUs: docker build -t sk-momkd . && docker run --rm -v "$PWD:/data" sk-momkd --help
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
COPY constraints.txt /tmp/constraints.txt
COPY --from=wheel /wheels /tmp/wheels
# torch first, from its index of CPU builds, which leaves out 3 GB of CUDA
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /tmp/wheels/sk_momkd-*.whl)[all]" \
    && rm -r /tmp/wheels
# patients' files are mounted here; nothing in the image needs root or the network
RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["sk-momkd"]
CMD ["--help"]
