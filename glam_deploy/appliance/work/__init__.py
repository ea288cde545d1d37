"""From a job to results on the disk and parcels for the targets."""
