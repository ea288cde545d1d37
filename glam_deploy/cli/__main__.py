"""`python -m glam_deploy.cli`: the command line without its script."""

from glam_deploy.cli.main import main

main()
