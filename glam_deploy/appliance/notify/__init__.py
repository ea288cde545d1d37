"""Notifications: what the receivers of [[notify]] are told of, and how it is sent. docs/notifications.md has examples.

message.py has the content, compose.py reads it from `state.db` and the files of a study; webhook.py, mail.py, hl7.py
(with mllp.py) and fhir.py turn it into messages and send them; worker.py retries and gives up.
"""
