"""Source mammogram of a result: its header, and the patient and study attributes that every result repeats.

Elements of patient and study are copied byte for byte, in the character set of the source, because decoding and
encoding a name again may change it.
"""

from datetime import datetime, tzinfo
from functools import cached_property
from pathlib import Path

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from glam_deploy.dicom.header import KEYWORDS, Header, dicom_errors, read_header, stored_sop_class
from glam_deploy.dicom.read import read_elements
from glam_deploy.dicom.results.records import Reference
from glam_deploy.dicom.values import Elements

_EMPTY_IF_ABSENT = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID",
)  # fmt: skip
"""Type 2 attributes of every information object: written empty if the source does not have them."""

_PATIENT_AND_STUDY = (
    *_EMPTY_IF_ABSENT,
    # Patient (PS3.3 C.7.1.1), and what older editions had there
    "ReferencedPatientSequence", "IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence",
    "SourcePatientGroupIdentificationSequence", "GroupOfPatientsIdentificationSequence", "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar", "PatientAlternativeCalendar",
    "QualityControlSubject", "OtherPatientNames", "OtherPatientIDs", "OtherPatientIDsSequence",
    "ReferencedPatientPhotoSequence", "EthnicGroup", "EthnicGroupCodeSequence", "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence", "BreedRegistrationSequence",
    "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization", "PatientComments",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    # General Study and Patient Study (C.7.2.1, C.7.2.2)
    "StudyInstanceUID", "IssuerOfAccessionNumberSequence", "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName", "ConsultingPhysicianIdentificationSequence", "StudyDescription",
    "ProcedureCodeSequence", "PhysiciansOfRecord", "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy", "PhysiciansReadingStudyIdentificationSequence", "ReferencedStudySequence",
    "RequestingService", "RequestingServiceCodeSequence", "ReasonForPerformedProcedureCodeSequence",
    "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "PatientAge", "PatientSize",
    "PatientSizeCodeSequence", "PatientBodyMassIndex", "MeasuredAPDimension", "MeasuredLateralDimension",
    "PatientWeight", "MedicalAlerts", "Allergies", "Occupation", "SmokingStatus", "AdditionalPatientHistory",
    "PregnancyStatus", "LastMenstrualDate", "PatientSexNeutered", "ReasonForVisit", "ReasonForVisitCodeSequence",
    "AdmissionID", "IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "ServiceEpisodeDescription",
    "IssuerOfServiceEpisodeIDSequence", "PatientState",
    # Clinical Trial Subject and Study (C.7.1.3, C.7.2.3)
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "IssuerOfClinicalTrialProtocolID", "OtherClinicalTrialProtocolIDsSequence", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "IssuerOfClinicalTrialSiteID", "ClinicalTrialSubjectID", "IssuerOfClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "IssuerOfClinicalTrialSubjectReadingID",
    "ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialProtocolEthicsCommitteeApprovalNumber",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription", "LongitudinalTemporalOffsetFromEvent",
    "LongitudinalTemporalEventType", "ClinicalTrialTimePointTypeCodeSequence", "IssuerOfClinicalTrialTimePointID",
    "ConsentForClinicalTrialUseSequence",
    # SOP Common (C.12.1): encoding of the attributes above
    "SpecificCharacterSet", "TimezoneOffsetFromUTC",
)  # fmt: skip
"""Attributes that are copied. Private elements are not copied, because their meaning is unknown."""

_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

_DETAILS = (
    "ContentDate", "ContentTime", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RescaleIntercept", "RescaleSlope", "RescaleType",
)  # fmt: skip
"""Attributes of the image that some objects repeat."""

_NUMBERS_IN_BYTES = frozenset({"AT", "FD", "FL", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "US", "UV"})
"""Value representations whose bytes differ between little and big endian."""


class Source:
    """Header of one mammogram with the patient's data, which is never logged or shown."""

    def __init__(self, elements: Dataset) -> None:
        self.elements = elements
        """Parsed elements; text values that were not accessed are still bytes."""

    @cached_property
    def header(self) -> Header:
        """The attributes that decide how the mammogram is read. Raises DicomError if they are damaged."""
        return read_header(self.elements)

    @property
    def study_uid(self) -> str:
        return Elements(self.elements).uid("StudyInstanceUID")

    def reference(self) -> Reference:
        """Reference with the UIDs as stored, even if invalid by PS3.5 section 9.1, because other objects use these."""
        elements = Elements(self.elements)
        sop_uid, series_uid = map(elements.uid, ("SOPInstanceUID", "SeriesInstanceUID"))
        return Reference(sop_class=stored_sop_class(elements), sop_uid=sop_uid, series_uid=series_uid)

    @property
    def zone(self) -> tzinfo | None:
        """Time zone of all dates and times in the source; None if it is not stated or invalid."""
        try:
            return datetime.strptime(str(self.elements.get("TimezoneOffsetFromUTC", "")).strip(), "%z").tzinfo
        except ValueError:
            return None

    def adopt(self, dataset: Dataset) -> None:
        """Copy patient, study and character set of the source into `dataset`, which has explicit VR little endian.

        If the source was compressed with loss, an image (a data set with LossyImageCompression) also receives the
        attributes of lossy compression.
        """
        lossy = "LossyImageCompression" in dataset and self.elements.get("LossyImageCompression") == "01"
        with dicom_errors("the patient or study of the DICOM header is damaged: export the object again"):
            for keyword in (*_PATIENT_AND_STUDY, *(_LOSSY if lossy else ())):
                _copy(self.elements, dataset, Tag(keyword))
        for keyword in _EMPTY_IF_ABSENT:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
        _keep_bytes(dataset)

    def anonymous(self) -> Dataset:
        """The attributes of the image that highdicom needs: UIDs and size, with an empty patient and study.

        highdicom parses every value, so an invalid name or date would raise an exception.
        """
        plain = Dataset()
        for keyword in _EMPTY_IF_ABSENT:
            setattr(plain, keyword, "")
        for keyword, uid in self.header.uids.items():
            setattr(plain, keyword, uid)
        plain.SOPClassUID, plain.Modality = self.header.sop_class, "MG"
        plain.Rows, plain.Columns = self.header.rows, self.header.columns
        return plain


SOURCE_KEYWORDS = (*KEYWORDS, *_PATIENT_AND_STUDY, *_LOSSY, *_DETAILS)
"""All elements of a mammogram on which a result object depends, PixelData included."""


def read_source(path: Path) -> Source:
    """The header of the mammogram in `path`. Raises DicomError if the file cannot be parsed."""
    return Source(read_elements(path, SOURCE_KEYWORDS))


def _copy(source: Dataset, target: Dataset, tag: BaseTag) -> None:
    """Copy the element `tag` of `source` to `target`, if it exists and is in the data dictionary."""
    element = source.get_item(tag) if tag in source and dictionary_has_tag(tag) else None
    if element is None:
        return
    vr = element.VR if element.VR not in (None, "UN") else dictionary_VR(tag)
    if vr == "SQ":
        target[tag] = DataElement(tag, "SQ", [_copied(item) for item in source[tag].value])
    elif isinstance(element, RawDataElement) and vr not in _NUMBERS_IN_BYTES:
        target[tag] = RawDataElement(tag, vr, 0, _even(element.value or b"", vr), 0, False, True)
    else:
        target[tag] = source[tag]


def _copied(item: Dataset) -> Dataset:
    copy = Dataset()
    for tag in list(item.keys()):
        _copy(item, copy, tag)
    _keep_bytes(copy)
    return copy


def _keep_bytes(dataset: Dataset) -> None:
    """Mark the original encoding as that of the output, so that pydicom writes raw values without conversion."""
    dataset.set_original_encoding(False, True, dataset._character_set)


def _even(value: bytes, vr: str) -> bytes:
    return value + (b"\0" if vr in ("UI", "OB") else b" ") * (len(value) % 2)
