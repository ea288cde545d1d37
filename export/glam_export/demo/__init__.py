"""A demonstration without patients: phantom mammograms and network weights, both made from code."""
