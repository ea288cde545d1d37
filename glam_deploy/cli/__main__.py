"""`python -m glam_deploy.cli`: as `python -m glam_deploy`."""

from glam_deploy.processes import leave_out_current_folder

leave_out_current_folder()

from glam_deploy.cli.main import main  # noqa: E402

main()
