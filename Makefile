# Two commands on a fresh machine (python3 3.11 or later with venv, make): `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help demo programs test lowest-test test-slow check validate report-test web-test pacs-test kill-test soak debian-test bench gpu-check clean bindings-test install-test network-test dist bills-test compatibility triton-test ray-test fuzz mutate site docs-test pictures

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "glam-deploy needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[export,dicom,appliance,openvino,quantize,tensorrt-rtx,dev]"
	touch $(INSTALLED)

help:  ## this list
	@awk -F ":.*## " '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED)  ## weights, images, bundle, results, pictures: the whole job, in demo/
	$(BIN)/glam-deploy demo --out demo

JOBS ?= 2
test: $(INSTALLED)  ## every test that needs no other program, in JOBS processes of 3 GB each
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

LOWEST := .venv-lowest/bin
lowest-test:  ## the tests with the lowest versions that setup.py admits, in a venv of their own; fifteen minutes
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet --constraint constraints.txt setuptools packaging
	$(LOWEST)/python packaging/lowest.py export dicom appliance openvino quantize tensorrt-rtx > .venv-lowest/lowest.txt
	$(LOWEST)/python -m pip install --quiet --constraint .venv-lowest/lowest.txt --editable ".[export,dicom,appliance,openvino,quantize,tensorrt-rtx,dev]"
	$(LOWEST)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

VALIDATED := dciodvfy or dcmftest or validators or encodes
test-slow: $(INSTALLED)  ## golden cases with several patches, of GMIC and CAM, and on the stand-in for a GPU: a quarter of an hour; not what validate runs
	$(BIN)/python -m pytest -m slow -k "not ($(VALIDATED))" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)  ## style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ADAPTERS := tests/glam_deploy/dicom/results/adapters
FHIR := tests/glam_deploy/appliance/notify/fhir
ENCODERS := dcmcjpeg gdcmconv opj_compress grk_compress ojph_compress
validate: $(INSTALLED)  ## the DICOM that we write and read, against other people's programs; installs them where apt-get is root's
	(for judge in dciodvfy dsrdump DicomSRValidator; do command -v $$judge >/dev/null || exit 1; done) || { apt-get update -q && apt-get install -q -y --no-install-recommends dicom3tools dcmtk openjdk-17-jre-headless libpixelmed-java pixelmed-apps; }
	which $(ENCODERS) >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends dcmtk libgdcm-tools libopenjp2-tools grokj2k-tools openjph-tools; }
	command -v npm >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends nodejs npm; }
	npm ci --prefix $(ADAPTERS) --ignore-scripts --no-audit --no-fund
	npm ci --prefix $(FHIR) --ignore-scripts --no-audit --no-fund
	GLAM_EXPECT=dciodvfy,dcmtk,pixelmed,adapters,gdcm-tools,openjpeg,grok,openjph,fhir $(BIN)/python -m pytest tests/glam_deploy/dicom tests/glam_deploy/appliance/notify tests/glam_deploy/archive/test_objects.py -m "slow or not slow" -k "$(VALIDATED)"

programs:  ## Debian's programs that the tests of other programs need, where apt-get is root's
	(for program in chromium npm nginx haproxy strace Orthanc storescu dciodvfy dsrdump DicomSRValidator $(ENCODERS); do command -v $$program >/dev/null || exit 1; done) || { export TMPDIR=/var/tmp RUNLEVEL=1; apt-get update -q && apt-get install -q -y --no-install-recommends chromium nodejs npm nginx-light haproxy strace orthanc orthanc-dicomweb dicom3tools dcmtk openjdk-17-jre-headless libpixelmed-java pixelmed-apps libgdcm-tools libopenjp2-tools grokj2k-tools openjph-tools; }

install-test: $(INSTALLED)  ## every install line in a fresh environment from the wheel, and what the source distribution holds
	$(BIN)/python -m pytest tests/install -m install --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

report-test: $(INSTALLED)  ## the pages of bench and evaluate as Chromium lays them out; installs Debian's where apt-get is root's
	command -v chromium >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; }
	GLAM_EXPECT=chromium $(BIN)/python -m pytest tests/glam_bench/report -m chromium

bindings-test: $(INSTALLED)  ## what is asked of TensorRT, against NVIDIA's bindings of four releases; downloads 5 MB
	$(BIN)/python -m pytest tests/trt_bindings -m "bindings or not bindings"

TRITON := .venv-triton/bin
triton-test: $(INSTALLED)  ## a real Triton server on the CPU, and the examples of services, in a venv of their own beside .venv; downloads 200 MB
	test -d .venv-triton || $(PYTHON) -m venv .venv-triton
	echo "import site; site.addsitedir('$$(echo $(CURDIR)/.venv/lib/python3*/site-packages)')" > $$(echo .venv-triton/lib/python3*/site-packages)/glam_deploy_venv.pth
	$(TRITON)/python -m pip install --quiet --no-deps nvidia-pytriton==0.7.0 monai-deploy-app-sdk==4.0.0 holoscan-cu13==4.6.0
	$(TRITON)/python -m pip install --quiet --no-warn-conflicts "tritonclient[http,grpc]==2.73.0" fastapi==0.165.0 uvicorn==0.54.0 litserve==0.2.19 python-multipart==0.0.34 typeguard==4.6.1 colorama==0.4.6 wheel-axle-runtime==0.0.13
	GLAM_EXPECT=triton,examples $(TRITON)/python -m pytest tests/glam_deploy/serving tests/examples -m "triton or not triton"

web-test: $(INSTALLED)  ## the appliance's pages in Chromium, by axe-core, behind nginx and haproxy, with a login provider; installs Debian's where apt-get is root's
	(for program in chromium npm nginx haproxy; do command -v $$program >/dev/null || exit 1; done) || { apt-get update -q && apt-get install -q -y --no-install-recommends chromium nodejs npm nginx-light haproxy; }
	npm ci --prefix tests/glam_deploy/appliance/web/axe --ignore-scripts --no-audit --no-fund
	npm ci --prefix tests/glam_deploy/appliance/web/provider --ignore-scripts --no-audit --no-fund
	GLAM_EXPECT=chromium,axe,nginx,haproxy,oidc-provider $(BIN)/python -m pytest tests/glam_deploy/appliance/web -m "chromium or not chromium" -k "chromium or nginx or oidc_provider"

network-test: $(INSTALLED)  ## no command reaches the outside, by its system calls; installs Debian's strace where apt-get is root's
	command -v strace >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends strace; }
	GLAM_EXPECT=strace $(BIN)/python -m pytest tests/outside -m strace

RAY := .venv-ray/bin
.venv-ray/installed: $(INSTALLED)
	$(PYTHON) -m venv .venv-ray
	echo "import site; site.addsitedir('$$(echo $(CURDIR)/.venv/lib/python3*/site-packages)')" > $$(echo .venv-ray/lib/python3*/site-packages)/glam_deploy_venv.pth
	$(RAY)/python -m pip install --quiet --constraint constraints.txt --editable ".[ray]" s3fs "moto[server,s3]"
	touch .venv-ray/installed

ray-test: .venv-ray/installed  ## archives with Ray, in a venv of their own beside .venv: kills, interruptions, two nodes; seven minutes
	$(RAY)/python -m pytest tests/glam_deploy/archive -m "ray or not ray"
	$(RAY)/python -m pytest tests/outside -m strace -k archive

PACS := Orthanc storescu dciodvfy
pacs-test: $(INSTALLED)  ## the appliance beside Debian's Orthanc, on loopback; installs it where apt-get is root's
	which $(PACS) >/dev/null || { export TMPDIR=/var/tmp RUNLEVEL=1; apt-get update -q && apt-get install -q -y --no-install-recommends orthanc orthanc-dicomweb dcmtk dicom3tools; }
	GLAM_EXPECT=orthanc,dcmtk $(BIN)/python -m pytest tests/pacs -m pacs

kill-test: $(INSTALLED)  ## 100 kills of its processes under load, after pacs-test has installed what it needs; five minutes
	GLAM_EXPECT=orthanc,dcmtk GLAM_KILLS=100 $(BIN)/python -m pytest tests/pacs/test_kills.py -m pacs

MINUTES ?= 10
soak: $(INSTALLED) demo/bundle  ## the appliance under load and in trouble for MINUTES, into build/soak; root only, after pacs-test has installed what it needs
	$(BIN)/python tests/soak/run.py --minutes $(MINUTES)

debian-test: $(INSTALLED)  ## the quick start typed in a fresh Debian 12, and the container built and run on it; root only, a quarter of an hour
	which debootstrap buildah >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends debootstrap buildah; }
	GLAM_EXPECT=debian $(BIN)/python -m pytest tests/debian -m debian

FUZZ := .venv-fuzz/bin
fuzz: $(INSTALLED)  ## every parser on damaged input for MINUTES in all, guided by coverage, in a venv of its own beside .venv
	test -d .venv-fuzz || $(PYTHON) -m venv .venv-fuzz
	echo "import site; site.addsitedir('$$(echo $(CURDIR)/.venv/lib/python3*/site-packages)')" > $$(echo .venv-fuzz/lib/python3*/site-packages)/glam_deploy_venv.pth
	$(FUZZ)/python -m pip install --quiet atheris==3.0.0
	$(FUZZ)/python tests/fuzz/campaign.py --minutes $(MINUTES)

MUTATE := .venv-mutate/bin
mutate: $(INSTALLED)  ## one change at a time in the code that decides pixels and states, and whether a test notices it; hours, or MODULES="frame window"
	test -d .venv-mutate || $(PYTHON) -m venv .venv-mutate
	echo "import site; site.addsitedir('$$(echo $(CURDIR)/.venv/lib/python3*/site-packages)')" > $$(echo .venv-mutate/lib/python3*/site-packages)/glam_deploy_venv.pth
	$(MUTATE)/python -m pip install --quiet mutmut==3.8.1
	OMP_NUM_THREADS=1 OPENCV_FOR_THREADS_NUM=1 nice -n 10 $(MUTATE)/python tests/mutation/campaign.py $(MODULES)

SITE := .venv-site/bin
site: $(INSTALLED)  ## the documentation as a site that needs no network, in build/site; installs Debian's npm where apt-get is root's
	command -v npm >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends nodejs npm; }
	test -d .venv-site || $(PYTHON) -m venv .venv-site
	echo "import site; site.addsitedir('$$(echo $(CURDIR)/.venv/lib/python3*/site-packages)')" > $$(echo .venv-site/lib/python3*/site-packages)/glam_deploy_venv.pth
	$(SITE)/python -m pip install --quiet --requirement packaging/site/requirements.txt
	mkdir -p build/site-assets
	cd build/site-assets && npm pack --silent mermaid@11.17.2 iframe-worker@1.0.4 >/dev/null
	cd build/site-assets && tar -xzf mermaid-*.tgz --strip-components=2 package/dist/mermaid.min.js
	cd build/site-assets && tar -xzf iframe-worker-*.tgz -O package/shim/index.js > iframe-worker.js
	cd build/site-assets && sha256sum --check --quiet $(CURDIR)/packaging/site/scripts.sha256
	NO_MKDOCS_2_WARNING=1 $(SITE)/mkdocs build --quiet --config-file packaging/site/mkdocs.yml

docs-test: site  ## the pages of the site in Chromium, and by axe-core, after web-test has installed them
	npm ci --prefix tests/glam_deploy/appliance/web/axe --ignore-scripts --no-audit --no-fund
	GLAM_EXPECT=chromium,axe,site $(BIN)/python -m pytest tests/docs -m site

pictures: $(INSTALLED) demo/bundle  ## docs/images/appliance again, with Chromium, after web-test has installed it
	PYTHONPATH=.:export:benchmarks:tests $(BIN)/python -m support.screenshots --bundle demo/bundle

demo/bundle: $(INSTALLED)
	$(BIN)/glam-deploy demo --out demo

DIST := .venv-dist/bin
.venv-dist/installed: packaging/requirements.txt
	$(PYTHON) -m venv .venv-dist
	$(DIST)/python -m pip install --quiet --requirement packaging/requirements.txt
	touch .venv-dist/installed

dist: $(INSTALLED) .venv-dist/installed  ## the files of a release, in dist/: distributions, SBOMs, checksums signed with KEY=key.pem
	rm -rf dist
	$(BIN)/python packaging/distributions.py dist
	$(DIST)/python packaging/sbom.py dist/*.whl dist
	$(BIN)/python packaging/sums.py dist $(KEY)

bills-test: $(INSTALLED)  ## the SBOMs by the schema of CycloneDX, and against environments that pip makes; a quarter of an hour
	$(BIN)/python -m pytest tests/install -m bills

compatibility: $(INSTALLED)  ## for which Python, system and extra every package has a wheel: the table of docs/releases.md
	$(BIN)/python packaging/compatibility.py

bench: $(INSTALLED) demo/bundle  ## engines beside other ways to run the demo weights, on this machine, into benchmarks/results/
	$(BIN)/glam-deploy bench --bundle demo/bundle --out benchmarks/results

gpu-check: $(INSTALLED) demo/bundle  ## builds, checks and times everything that needs an NVIDIA GPU; see benchmarks/README.md
	$(BIN)/python -m glam_bench.gpu_check --out benchmarks/results

clean:
	rm -rf .venv .venv-lowest .venv-ray .venv-triton .venv-fuzz .venv-mutate .venv-site .venv-dist demo build dist mutants *.egg-info
