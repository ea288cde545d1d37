"""HTTP of the appliance: status pages, health, metrics and STOW-RS. The only importer of the web packages.

server      sockets, TLS, time limits, and the role `web`
app         routes, and the guard that every request passes: host, origin, access, headers of every answer
context     what the handlers of requests share
access      token, sessions, the limit on wrong tokens, rules for the section `web`
pages       HTML pages; actions: forms that change something; render: templates and plots; pictures: views as PNG
monitoring  /health and /metrics
stow        STOW-RS (PS3.18 section 10.5) and its multipart body

A new page is a handler in `pages`, a template in `templates/` and a route in `app`.
"""
