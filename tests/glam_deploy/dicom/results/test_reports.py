"""What the two structured reports and the presentation state say, read back item by item."""

from collections.abc import Iterator
from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from mammograms import write_mg
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.results import ALGORITHM, done, finding, identity, not_done, study

from glam_deploy.dicom.results.cad_sr import cad_sr
from glam_deploy.dicom.results.measurement_report import measurement_report
from glam_deploy.dicom.results.presentation_state import presentation_state
from glam_deploy.dicom.results.records import Reference
from glam_deploy.dicom.results.regions import summarize
from glam_deploy.errors import DicomError, UsageError
from glam_deploy.records import View

PREDECESSOR = Reference(sop_class="1.2.840.10008.5.1.4.1.1.88.50", sop_uid="2.25.77", series_uid="2.25.78")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return study(tmp_path_factory.mktemp("study"))


def items(root: Dataset, value: str) -> Iterator[Dataset]:
    """All content items whose concept name has the code `value`, in document order."""
    for item in root.get("ContentSequence", []):
        if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeValue == value:
            yield item
        yield from items(item, value)


def values(root: Dataset, value: str) -> list[str]:
    """Codes, numbers or texts of those items."""
    return [
        item.ConceptCodeSequence[0].CodeValue
        if item.ValueType == "CODE"
        else item.get("TextValue") or float(item.MeasuredValueSequence[0].NumericValue)
        for item in items(root, value)
    ]


def at(root: Dataset, position: list[int]) -> Dataset:
    """The item at a position of the kind that references use: the root is 1, its first child 1.1."""
    item = root
    for n in position[1:]:
        item = item.ContentSequence[n - 1]
    return item


class TestCadSr:
    def test_regions_are_selected_regions_and_only_malignant_ones_insist(self, outcomes):
        report = cad_sr(outcomes, ALGORITHM, identity(1))
        assert values(report, "111059") == ["111099"] * 3
        intents = [values(item, "111056")[-1] for item in items(report, "111034")]
        assert intents == ["111151", "111151", "111150"]
        assert [text.split(". ")[0] for text in values(report, "111058")] == [
            "benign saliency up to 0.750, 0.5 mm2",
            "benign saliency up to 0.562, 0.0 mm2",
            "malignant saliency up to 0.938, 0.3 mm2",
        ]
        assert values(report, "111047") == []

    def test_a_region_lies_on_its_image_of_the_library_in_columns_and_rows(self, outcomes):
        report = cad_sr(outcomes, ALGORITHM, identity(1))
        center, outline = (list(items(report, code))[-1] for code in ("111010", "111041"))
        assert (center.GraphicType, list(center.GraphicData)) == ("POINT", [7.5, 21])
        points = np.array(outline.GraphicData).reshape(-1, 2)
        assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([6, 12], [9, 30])
        for item in (center, outline):
            image = at(report, item.ContentSequence[0].ReferencedContentItemIdentifier)
            assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == outcomes[0].image.sop_uid
            assert values(image, "111027") == ["80248007"] and values(image, "111031") == ["399162004"]

    def test_probability_is_told_only_when_asked_for_and_only_of_malignant_regions(self, outcomes):
        report = cad_sr(outcomes, ALGORITHM, identity(1), probability=True)
        assert values(report, "111059") == ["111099", "111099", "129793001"]
        assert values(report, "111047") == [93.75]

    @pytest.mark.parametrize(
        ("which", "summary", "detections"),
        [
            ([0], "111242", "111222"),
            ([1], "111241", "111222"),
            ([0, 1, 3], "111242", "111222"),
            ([0, 2], "111244", "111223"),
            ([1, 2], "111243", "111223"),
            ([2], "111245", "111224"),
            ([3], "111245", "111225"),
            ([2, 3], "111245", "111224"),
        ],
    )
    def test_it_says_how_it_went(self, outcomes, which, summary, detections):
        report = cad_sr([outcomes[n] for n in which], ALGORITHM, identity(1))
        assert values(report, "111017") == [summary] and values(report, "111064") == [detections]
        assert values(report, "111065") == ["111225"]

    def test_each_view_is_listed_as_it_went(self, outcomes):
        report = cad_sr(outcomes, ALGORITHM, identity(1))
        by_group = {}
        for code in ("111063", "111025"):
            (performed,) = items(next(items(report, code)), "111022")
            found = [
                item.ReferencedContentItemIdentifier
                for item in performed.ContentSequence
                if "ConceptNameCodeSequence" not in item
            ]
            by_group[code] = [at(report, place).ReferencedSOPSequence[0].ReferencedSOPInstanceUID for place in found]
        assert by_group == {
            "111063": [outcomes[0].image.sop_uid, outcomes[1].image.sop_uid],
            "111025": [outcomes[2].image.sop_uid],
        }
        (told,) = values(report, "111033")
        assert "L-MLO: Could not be processed: the pixels are damaged" in told
        assert "Not processed, because it is not meant for this network: the view is a magnification" in told
        assert "Research use only" in told and "A film label was left out." in told

    def test_everything_that_made_it_is_told(self, outcomes):
        report = cad_sr(outcomes, ALGORITHM, identity(1))
        for fact in (ALGORITHM.checkpoint_sha256, ALGORITHM.engine_digest, ALGORITHM.gate, "Threshold malignant: 0.4"):
            assert any(fact in text for text in values(report, "111002"))


class TestMeasurementReport:
    def test_another_library_reads_regions_scores_and_segments(self, outcomes):
        content = hd.sr.ComprehensiveSR.from_dataset(measurement_report(outcomes, ALGORITHM, identity(1))).content
        whole = content.get_image_measurement_groups()
        assert len(whole) == 4
        scores = [(m.name.meaning, m.value) for m in whole[0].get_measurements()]
        assert ("Score y_global, malignant", 0.75) in scores and ("Score y_local, benign", 0.125) in scores
        assert [len(group.get_measurements()) for group in whole] == [4, 4, 0, 0]
        planar = content.get_planar_roi_measurement_groups()
        regions = [
            group for group in planar if group.reference_type == hd.sr.CodedConcept("111030", "DCM", "Image Region")
        ]
        assert len(planar) == 5 and len(regions) == 3
        assert [m.value for m in regions[2].get_measurements()] == pytest.approx([54 * 0.0049, 0.9375], rel=1e-5)
        points = regions[2].roi.value
        assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([6, 12], [9, 30])
        assert regions[2].finding_sites[0].laterality.meaning == "Left"

    def test_segments_are_those_of_the_seg_object(self, outcomes):
        report = measurement_report(outcomes, ALGORITHM, identity(1))
        referenced = [item.ReferencedSOPSequence[0] for item in items(report, "121214")]
        assert [(r.ReferencedSOPInstanceUID, r.ReferencedSegmentNumber) for r in referenced] == [
            (outcomes[0].summary.segmentation.sop_uid, 1),
            (outcomes[0].summary.segmentation.sop_uid, 2),
        ]
        (study_item,) = report.CurrentRequestedProcedureEvidenceSequence
        evidence = {
            s.ReferencedSOPInstanceUID for e in study_item.ReferencedSeriesSequence for s in e.ReferencedSOPSequence
        }
        assert evidence >= {outcome.image.sop_uid for outcome in outcomes} | {referenced[0].ReferencedSOPInstanceUID}

    def test_views_without_result_are_listed_with_their_reason(self, outcomes):
        told = " ".join(values(measurement_report(outcomes, ALGORITHM, identity(1)), "121106"))
        for text in ("L-MLO: Could not be processed: the pixels are damaged", "the view is a magnification"):
            assert text in told
        assert "ImagerPixelSpacing" in told and ALGORITHM.checkpoint_sha256 in told

    def test_the_triage_flag_is_a_code_for_programs(self, outcomes):
        found = {
            threshold: values(
                measurement_report(outcomes, replace(ALGORITHM, triage_threshold=threshold), identity(1)), "triage_flag"
            )
            for threshold in (0.01, 0.99)
        }
        assert found == {0.01: ["triage_set"], 0.99: ["triage_not_set"]}

    def test_private_codes_are_declared(self, outcomes):
        report = measurement_report(outcomes, ALGORITHM, identity(1))
        assert [item.CodingSchemeDesignator for item in report.CodingSchemeIdentificationSequence] == ["99GLAM"]

    def test_without_segmentation_and_spacing(self, tmp_path):
        path = write_mg(tmp_path / "image.dcm", lambda dataset: delattr(dataset, "ImagerPixelSpacing"))
        outcome = done(path)
        bare = replace(outcome, summary=summarize(finding(path), ALGORITHM, segmentation=None))
        report = measurement_report([bare], ALGORITHM, identity(1))
        assert list(items(report, "121214")) == list(items(report, "42798000")) == []
        assert len(list(items(report, "111030"))) == 3


@pytest.mark.parametrize("write", [cad_sr, measurement_report])
class TestBoth:
    def test_a_predecessor_is_named(self, outcomes, write):
        assert "PredecessorDocumentsSequence" not in write(outcomes, ALGORITHM, identity(1))
        report = write(outcomes, ALGORITHM, identity(1), predecessor=PREDECESSOR)
        series = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
        assert series.SeriesInstanceUID == PREDECESSOR.series_uid
        assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == PREDECESSOR.sop_uid

    def test_without_any_mammogram_there_is_no_report(self, write):
        with pytest.raises(UsageError, match="at least one mammogram"):
            write([], ALGORITHM, identity(1))

    def test_a_source_that_cannot_be_read_is_no_hindrance_while_another_can(self, outcomes, tmp_path, write):
        (tmp_path / "torn").write_bytes(b"DICM")
        torn = replace(outcomes[2], source=tmp_path / "torn")
        report = write([torn, outcomes[0]], ALGORITHM, identity(1))
        assert report.PatientName == dcmread(outcomes[0].source).PatientName
        with pytest.raises(DicomError):
            write([torn], ALGORITHM, identity(1))

    @pytest.mark.parametrize(
        ("threshold", "state"), [(0.01, "set ("), (0.99, "not set, which is no negative result (")]
    )
    def test_the_triage_flag_is_text_with_its_threshold_and_what_it_does_not_say(
        self, outcomes, write, threshold, state
    ):
        report = write(outcomes, replace(ALGORITHM, triage_threshold=threshold), identity(1))
        texts = " ".join(map(str, [*values(report, "111033"), *values(report, "121106")]))
        assert f"Triage flag of this site: {state}highest malignant score" in texts
        assert f"threshold {threshold:g}, images without a result: " in texts
        assert "It is not a diagnosis." in texts

    def test_without_a_threshold_there_is_no_flag(self, outcomes, write):
        report = write(outcomes, ALGORITHM, identity(1))
        texts = [*values(report, "111033"), *values(report, "121106"), *values(report, "triage_flag")]
        assert "Triage" not in " ".join(map(str, texts))

    def test_exam_level_scores_are_text_and_not_calibrated(self, outcomes, write):
        """Of two views with 0.75 and 0.25."""
        other = replace(outcomes[1].summary, scores={"y_global": {"benign": 0.5, "malignant": 0.25}})
        first = replace(outcomes[0].summary, scores={"y_global": {"benign": 0.5, "malignant": 0.75}})
        views = [
            replace(outcome, view=view, summary=summary)
            for outcome, view, summary in zip(outcomes[:2], (View.L_CC, View.R_CC), (first, other), strict=True)
        ]
        report = write(views, ALGORITHM, identity(1))
        told = " ".join(values(report, "111033") + values(report, "121106"))
        assert "Exam-level scores: mean / maximum over the images, not calibrated." in told
        assert "Exam: y_global benign 0.500 / 0.500, malignant 0.500 / 0.750." in told
        assert "Left breast: y_global benign 0.500 / 0.500, malignant 0.750 / 0.750." in told
        assert "Incomplete: no result of L-MLO; no result of R-MLO." in told

    @pytest.mark.parametrize(
        ("changes", "remark"),
        [
            ({"made_by": "other"}, "results of different networks, engines or settings, which are not combined"),
            ({"patient": {"PatientID": "canary"}}, "headers differ in PatientID, so the images are not combined"),
        ],
    )
    def test_views_of_another_network_or_patient_are_not_combined(self, outcomes, write, changes, remark):
        summaries = [replace(each.summary, made_by="one", patient={"PatientID": "one"}) for each in outcomes[:2]]
        summaries[1] = replace(summaries[1], **changes)
        views = [replace(each, summary=found) for each, found in zip(outcomes[:2], summaries, strict=True)]
        report = write(views, ALGORITHM, identity(1))
        told = " ".join(values(report, "111033") + values(report, "121106"))
        assert remark in told
        assert ("Exam: y_" in told, "canary" in told) == (False, False)

    def test_reasons_outside_ascii_do_no_harm(self, outcomes, write):
        odd = replace(outcomes[2], reason="Größe \x00 \\ 乳房")
        report = write([odd, outcomes[0]], ALGORITHM, identity(1))
        told = values(report, "111033") + values(report, "121106")
        assert "Gr??e ? \\ ??." in " ".join(told)


class TestPresentationState:
    def test_boxes_stand_around_the_regions(self, source):
        summary = summarize(finding(source), ALGORITHM, segmentation=None)
        state = presentation_state(source, summary, ALGORITHM, identity(1))
        banner, *marks = state.GraphicAnnotationSequence
        assert banner.TextObjectSequence[0].UnformattedTextValue == "Research use only. Not for diagnosis"
        assert [mark.TextObjectSequence[0].UnformattedTextValue for mark in marks] == [
            "benign 0.75",
            "benign 0.56",
            "malignant 0.94",
        ]
        assert marks[2].GraphicObjectSequence[0].GraphicData == [6, 12, 9, 12, 9, 30, 6, 30, 6, 12]
        layers = {layer.GraphicLayer for layer in state.GraphicLayerSequence}
        assert {mark.GraphicLayer for mark in state.GraphicAnnotationSequence} <= layers

    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_the_image_looks_as_without_it(self, tmp_path, photometric):
        path = write_mg(tmp_path / "image.dcm", photometric=photometric)
        summary = summarize(finding(path), ALGORITHM, segmentation=None)
        state, image = presentation_state(path, summary, ALGORITHM, identity(1)), dcmread(path)
        (voi,) = state.SoftcopyVOILUTSequence
        assert (voi.WindowCenter, voi.WindowWidth) == (image.WindowCenter, image.WindowWidth)
        assert state.PresentationLUTShape == image.PresentationLUTShape
        assert (state.RescaleSlope, state.RescaleIntercept) == (1, 0)

    def test_several_windows_or_a_table(self, tmp_path):
        def table(dataset: Dataset) -> None:
            del dataset.WindowCenter, dataset.WindowWidth
            lut = Dataset()
            lut.LUTDescriptor, lut.LUTExplanation, lut.LUTData = [4, 0, 8], "CANARY", [1, 2, 3, 4]
            lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
            dataset.VOILUTSequence = [lut]

        def windows(dataset: Dataset) -> None:
            dataset.WindowCenter, dataset.WindowWidth = [100, 200], [10, 20]

        vois = []
        for n, edit in enumerate((table, windows)):
            path = write_mg(tmp_path / f"{n}.dcm", edit)
            summary = summarize(finding(path), ALGORITHM, segmentation=None)
            vois.append(presentation_state(path, summary, ALGORITHM, identity(1)).SoftcopyVOILUTSequence[0])
        assert vois[0].VOILUTSequence[0].LUTData == [1, 2, 3, 4] and "CANARY" not in str(vois[0])
        assert (vois[1].WindowCenter, vois[1].WindowWidth) == (100, 10)


def test_right_is_right(tmp_path):
    path = write_mg(tmp_path / "image.dcm", view=View.R_MLO)
    report = cad_sr([not_done(path, "failed", "no reason", View.R_MLO)], ALGORITHM, identity(1))
    assert values(report, "111027") == ["73056007"] and values(report, "111031") == ["399368009"]
