"""Mammograms of a job that have no result: those of which a person must learn.

A For Processing image beside a For Presentation image of the same view is none of them: many modalities send both, and
the network is made for the second one. Any other mammogram that failed or was skipped is one, whatever the reason: a
study must not look analyzed because nothing went wrong.
"""

import sqlite3

FOR_PRESENTATION, FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1"
"""As of `dicom.acceptance`, which needs pydicom; the state is also read without it."""
TWIN = (
    f"(v.outcome = 'skipped' AND i.sop_class = '{FOR_PROCESSING}' AND EXISTS (SELECT 1 FROM job_view w"
    " JOIN instance p ON p.sop_uid = w.sop_uid WHERE w.job_id = v.job_id"
    f" AND p.sop_class = '{FOR_PRESENTATION}' AND coalesce(i.view, p.view) IS p.view))"
)
"""SQL condition on `job_view` v and its `instance` i: a For Processing image, skipped beside its twin. One of an
unknown view (all of earlier releases) is a twin of any For Presentation image.
"""
WITHOUT_RESULT = f"(v.outcome IN ('failed', 'skipped') AND NOT {TWIN})"
"""SQL condition on `job_view` v and its `instance` i."""


def counts(connection: sqlite3.Connection, job_id: int) -> tuple[int, int]:
    """Number of mammograms of a job without a result, and of all; twins are in neither.

    An image that a rule of [[routes]] discarded counts as one with a result, because nobody waits for it.
    """
    without, number = connection.execute(
        f"SELECT count(*) FILTER (WHERE {WITHOUT_RESULT} AND (v.outcome = 'failed' OR i.state != 'candidate')),"
        f" count(*) FROM job_view v JOIN instance i ON i.sop_uid = v.sop_uid WHERE v.job_id = ? AND NOT {TWIN}",
        (job_id,),
    ).fetchone()
    return int(without), int(number)
