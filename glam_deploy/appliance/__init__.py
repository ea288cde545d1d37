"""The appliance beside a PACS: receives mammograms, runs the network, sends result objects into the same study.

    sender --C-STORE, STOW-RS--> receive, web   -> spool/ and state.db     receiver and web processes
                                 housekeeping:     study complete -> job   keeper process
                                 work:             job -> results/         worker process
             PACS <--C-STORE, STOW-RS-- dispatch:  delivery per target     dispatcher process

Every process may be killed at any moment: `state.db` records what has happened, and a file is complete before a row
names it. The processes share the data folder and nothing else.
"""

import logging

from glam_deploy.appliance.process import FallbackHandler

logging.getLogger(__name__).addHandler(FallbackHandler(logging.WARNING))
