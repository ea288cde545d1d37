"""One engine against the reference on the GPU, with the verdict that the gate would give."""

from glam_bench.gpu.plan import GpuContext
from glam_bench.opening import open_engine, pipeline_of
from glam_bench.parity import case, summary
from glam_deploy.agreement.golden import check_golden, golden_patches
from glam_deploy.bundle import open_bundle


def run(context: GpuContext) -> None:
    """The golden case against the bundle's outputs for it, then each case and K that `reference` has computed."""
    from glam_bench.measurements import reference

    bundle = open_bundle(context.bundle)
    opened = open_engine(context.argument, bundle, device=context.options.device)
    rows = check_golden(bundle, pipeline_of(opened, golden_patches(bundle)))
    context.add(golden={row.name: row.max_abs for row in rows})
    for k in reference.DEPTHS:
        pipeline, local = pipeline_of(opened, k), opened.engines["local"]
        paths = sorted(reference.folder(context.options).glob(f"*.k{k}.npz"))
        if cases := [case(pipeline, local, *reference.read(path), bundle.network) for path in paths]:
            context.add(**{f"k={k}": summary(cases)})
