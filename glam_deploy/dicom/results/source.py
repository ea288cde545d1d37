"""The mammogram that a result belongs to: what its header says, and its patient and study as every result repeats them.

Elements of the patient and of the study are copied byte for byte, in the source's own character set: what a decoder
makes of a name, and what it would write back, need not be the same.
"""

from datetime import datetime, tzinfo
from functools import cached_property
from pathlib import Path

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from glam_deploy.dicom.header import KEYWORDS, Header, foreign_errors, read_header
from glam_deploy.dicom.read import read_elements
from glam_deploy.dicom.results.records import Reference
from glam_deploy.dicom.values import Elements

_EMPTY_IF_ABSENT = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID",
)  # fmt: skip
"""Type 2 in every information object: there even where the source lacks them."""

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
    # SOP Common (C.12.1): how the above is to be read
    "SpecificCharacterSet", "TimezoneOffsetFromUTC",
)  # fmt: skip
"""What is copied. Private elements are not: nobody here knows what they say."""

_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

_DETAILS = (
    "ContentDate", "ContentTime", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RescaleIntercept", "RescaleSlope", "RescaleType",
)  # fmt: skip
"""Of the image, for the objects that repeat them."""

_NUMBERS_IN_BYTES = frozenset({"AT", "FD", "FL", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "US", "UV"})
"""Value representations whose bytes differ between little and big endian."""


class Source:
    """One mammogram's header; holds the patient's data, so it is never logged or shown."""

    def __init__(self, elements: Dataset) -> None:
        self.elements = elements
        """As parsed: the values of text elements are bytes still, where nobody has asked for them."""

    @cached_property
    def header(self) -> Header:
        """What decides how the mammogram is read. Raises DicomError where that is damaged."""
        return read_header(self.elements)

    @property
    def study_uid(self) -> str:
        return Elements(self.elements).uid("StudyInstanceUID")

    def reference(self) -> Reference:
        """The mammogram as it calls itself, with UIDs that may be none by PS3.5 section 9.1: so all others know it."""
        read = Elements(self.elements).uid
        return Reference(
            sop_class=read("SOPClassUID"), sop_uid=read("SOPInstanceUID"), series_uid=read("SeriesInstanceUID")
        )

    @property
    def zone(self) -> tzinfo | None:
        """That of all dates and times in the source, where it says so."""
        try:
            return datetime.strptime(str(self.elements.get("TimezoneOffsetFromUTC", "")).strip(), "%z").tzinfo
        except ValueError:
            return None

    def adopt(self, dataset: Dataset) -> None:
        """Write patient, study and character set of the source into `dataset`, an explicit little endian one.

        Into an image, one that has LossyImageCompression, that the source was compressed with loss, too.
        """
        lossy = "LossyImageCompression" in dataset and self.elements.get("LossyImageCompression") == "01"
        with foreign_errors("the patient or study of the DICOM header is damaged: export the object again"):
            for keyword in (*_PATIENT_AND_STUDY, *(_LOSSY if lossy else ())):
                _copy(self.elements, dataset, Tag(keyword))
        for keyword in _EMPTY_IF_ABSENT:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
        _keep_bytes(dataset)

    def anonymous(self) -> Dataset:
        """What highdicom must know of the image: UIDs and size; patient and study are empty.

        It parses every value that it is given, and a name or a date that somebody mistyped would stop it.
        """
        plain = Dataset()
        for keyword in _EMPTY_IF_ABSENT:
            setattr(plain, keyword, "")
        for keyword, uid in self.header.uids.items():
            setattr(plain, keyword, uid)
        plain.SOPClassUID, plain.Modality = self.header.sop_class, "MG"
        plain.Rows, plain.Columns = self.header.rows, self.header.columns
        return plain


def read_source(path: Path) -> Source:
    """The header of the mammogram in `path`. Raises DicomError where the file cannot be parsed."""
    return Source(read_elements(path, (*KEYWORDS, *_PATIENT_AND_STUDY, *_LOSSY, *_DETAILS)))


def _copy(source: Dataset, target: Dataset, tag: BaseTag) -> None:
    """The element `tag` of `source`, if it has one that the dictionary knows, into `target`."""
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
    """Have pydicom write raw values as they are: it does so for those read from the encoding that it writes."""
    dataset.set_original_encoding(False, True, dataset._character_set)


def _even(value: bytes, vr: str) -> bytes:
    return value + (b"\0" if vr in ("UI", "OB") else b" ") * (len(value) % 2)
