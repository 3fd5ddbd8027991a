"""SegDataPreProcessor beside mmseg's: the same bits, the same samples; and where ours differs on purpose."""

# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from segfast import structures
from segfast.errors import DataError
from segfast.models import SegDataPreProcessor

pytest.importorskip("hypothesis")
theirs = pytest.importorskip("mmseg.models.data_preprocessor", exc_type=ImportError)
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

MAPS = {"gt_sem_seg": torch.uint8, "gt_edge_map": torch.int64, "gt_depth_map": torch.float32}
DTYPES = [torch.uint8, torch.uint8, torch.int16, torch.int64, torch.float32, torch.float64]


def shape_of_images(draw, *, alike):
    count = draw(st.integers(1, 4))
    side = st.integers(1, 40)
    if alike:
        return [(draw(side), draw(side))] * count
    return [(draw(side), draw(side)) for _ in range(count)]


def padding(draw, shapes):
    """`size` or `size_divisor`; a size that all images fit, or that all exceed alike."""
    if draw(st.booleans()):
        return {"size_divisor": draw(st.sampled_from([1, 8, 32]))}
    height, width = (max(lengths) for lengths in zip(*shapes, strict=True))
    if len(set(shapes)) == 1 and draw(st.booleans()):
        return {"size": (draw(st.integers(1, 50)), draw(st.integers(1, 50)))}
    return {"size": (height + draw(st.integers(0, 9)), width + draw(st.integers(0, 9)))}


def make_images(draw, shapes, channels):
    dtype = draw(st.sampled_from(DTYPES))
    images = [torch.randint(0, 256, (channels, *shape)).to(dtype) for shape in shapes]
    if dtype.is_floating_point:
        images = [image / 7 for image in images]
    layout = draw(st.sampled_from(["contiguous", "transposed", "stacked"]))
    if layout == "transposed":
        images = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]
    return torch.stack(images) if layout == "stacked" and len(set(shapes)) == 1 else images


def make_samples(draw, shapes):
    """The same samples twice, in our containers and in theirs; perhaps one object for all images."""
    names = [name for name in MAPS if draw(st.booleans())]
    pair = ([], [])
    for height, width in shapes:
        maps = {name: torch.randint(0, 9, (1, height, width)).to(MAPS[name]) for name in names}
        meta = {"ori_shape": (height, width), "img_path": "a.png"}
        for samples, element, pixels in zip(
            pair,
            (structures.SegDataSample, SegDataSample),
            (structures.PixelData, PixelData),
            strict=True,
        ):
            fields = {name: pixels(data=data.clone()) for name, data in maps.items()}
            samples.append(element(metainfo=meta, **fields))
    if len(set(shapes)) == 1 and draw(st.booleans()):
        return tuple([samples[0]] * len(shapes) for samples in pair)
    return pair


def arguments(draw, channels):
    length = draw(st.sampled_from([0, 1, channels]))
    number = st.one_of(st.integers(1, 255), st.floats(0.125, 255))
    options = {}
    if length:
        options = {
            name: draw(st.lists(number, min_size=length, max_size=length))
            for name in ("mean", "std")
        }
    conversion = draw(st.sampled_from([None, "bgr_to_rgb", "rgb_to_bgr"]))
    if conversion:
        options[conversion] = True
    return {
        **options,
        "pad_val": draw(st.sampled_from([0, 0.5, -3])),
        "seg_pad_val": draw(st.sampled_from([255, 0])),
    }


def assert_same_samples(ours, upstream):
    for a, b in zip(ours, upstream, strict=True):
        assert set(a.keys()) == set(b.keys())
        for name in a.keys():  # noqa: SIM118  (samples are no mappings)
            x, y = getattr(a, name).data, getattr(b, name).data
            assert x.dtype == y.dtype
            assert torch.equal(x, y)
        assert a.metainfo == b.metainfo
        for name, value in a.metainfo.items():
            if "shape" in name:
                assert type(value) is type(b.metainfo[name])


def assert_same(ours, upstream):
    assert set(ours) == set(upstream) == {"inputs", "data_samples"}
    assert ours["inputs"].dtype == upstream["inputs"].dtype
    assert torch.equal(ours["inputs"], upstream["inputs"])
    if upstream["data_samples"] is None:
        assert ours["data_samples"] is None
    else:
        assert_same_samples(ours["data_samples"], upstream["data_samples"])


@settings(max_examples=400)
@given(st.data())
def test_training_batches(data):
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    shapes, channels = shape_of_images(draw, alike=draw(st.booleans())), draw(st.integers(1, 5))
    images, (our_samples, their_samples) = (
        make_images(draw, shapes, channels),
        make_samples(draw, shapes),
    )
    options = {**arguments(draw, channels), **padding(draw, shapes)}
    ours, upstream = SegDataPreProcessor(**options), theirs.SegDataPreProcessor(**options)
    for _ in range(2):  # the caller's batch is as good as new
        out = ours({"inputs": images, "data_samples": our_samples, "more": 1}, training=True)
        want = upstream({"inputs": images, "data_samples": their_samples, "more": 1}, training=True)
        assert_same(out, want)
    for name in ("mean", "std"):
        assert hasattr(ours, name) == hasattr(upstream, name)
        assert torch.equal(
            getattr(ours, name, torch.ones(1)), getattr(upstream, name, torch.ones(1))
        )
    for name in (
        "channel_conversion",
        "_enable_normalize",
        "size",
        "size_divisor",
        "pad_val",
        "seg_pad_val",
    ):
        assert getattr(ours, name) == getattr(upstream, name)
    assert list(ours.state_dict()) == list(upstream.state_dict()) == []


@settings(max_examples=300)
@given(st.data())
def test_batches_of_validation(data):
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    shapes, channels = shape_of_images(draw, alike=True), draw(st.integers(1, 5))
    images, (our_samples, their_samples) = (
        make_images(draw, shapes, channels),
        make_samples(draw, shapes),
    )
    options = arguments(draw, channels)
    if draw(st.booleans()):
        options["test_cfg"] = padding(draw, shapes)
    elif draw(st.booleans()):
        our_samples = their_samples = None
    if draw(st.booleans()):
        options["size"] = (3, 3)  # of training only
    out = SegDataPreProcessor(**options)({"inputs": images, "data_samples": our_samples})
    want = theirs.SegDataPreProcessor(**options)({"inputs": images, "data_samples": their_samples})
    assert_same(out, want)


def test_where_ours_differs_on_purpose():
    def call(make, images, samples=None, training=False, **options):
        return make(**options)({"inputs": images, "data_samples": samples}, training=training)

    upstream = theirs.SegDataPreProcessor
    images = [torch.rand(3, 4, 5), torch.rand(3, 6, 5)]
    # Neither size nor size_divisor: the batch maximum. Sizes that differ at test time: padded, each noted.
    with pytest.raises(AssertionError, match="only one of size and size_divisor"):
        call(upstream, images, [SegDataSample()] * 2, training=True)
    out = call(SegDataPreProcessor, images, [structures.SegDataSample()] * 2, training=True)
    assert out["inputs"].shape == (2, 3, 6, 5)
    with pytest.raises(AssertionError, match="image size"):
        call(upstream, images)
    samples = call(SegDataPreProcessor, images)["data_samples"]
    assert [sample.img_padding_size for sample in samples] == [(0, 0, 0, 2), (0, 0, 0, 0)]
    # Images of which only some exceed the size: a name and a remedy instead of torch.stack's error.
    with pytest.raises(RuntimeError, match="stack"):
        call(upstream, images, [SegDataSample()] * 2, training=True, size=(5, 5))
    with pytest.raises(DataError, match=r"larger than data_preprocessor\.size"):
        call(
            SegDataPreProcessor,
            images,
            [structures.SegDataSample()] * 2,
            training=True,
            size=(5, 5),
        )
    # One channel and three means: upstream makes three channels of it.
    gray, norm = [torch.rand(1, 4, 5)], {"mean": [1, 2, 3], "std": [1, 1, 1]}
    assert call(upstream, gray, **norm)["inputs"].shape == (1, 3, 4, 5)
    with pytest.raises(DataError, match=r"1 channel\(s\).*mean has 3 values"):
        call(SegDataPreProcessor, gray, **norm)
    # A map of another size than its image: upstream pads it by the image's padding.
    label = torch.zeros(1, 9, 9, dtype=torch.uint8)
    call(
        upstream,
        images[:1],
        [SegDataSample(gt_sem_seg=PixelData(data=label))],
        training=True,
        size=(8, 8),
    )
    sample = structures.SegDataSample(gt_sem_seg=structures.PixelData(data=label))
    with pytest.raises(DataError, match="gt_sem_seg is"):
        call(SegDataPreProcessor, images[:1], [sample], training=True, size=(8, 8))
    # A list of augmentations: called, where upstream calls the list.
    ours = {"batch_augments": [{"type": "CutMix"}], "size_divisor": 2}
    with pytest.raises(TypeError, match="not callable"):
        call(upstream, images, [SegDataSample()] * 2, training=True, **ours)
    call(SegDataPreProcessor, images, [structures.SegDataSample()] * 2, training=True, **ours)
