"""The appliance beside a PACS: receives views, finds lesions, sends the results into the same study, loses nothing.

    sender --C-STORE, STOW-RS--> ingest -> spool/ and state.db     receiver and web processes
                                 assemble: study complete -> job   keeper process
                                 work: job -> results/ and parcels worker process
             PACS <--C-STORE, STOW-RS-- dispatch: parcel           dispatcher process

Every process may be killed at any moment: what has happened is what `state.db` says, and a file is whole before a row
names it. Processes share nothing else.
"""

import logging

from glam_deploy.appliance.log import LastResort

logging.getLogger(__name__).addHandler(LastResort(logging.WARNING))
