"""HTTP of the appliance: status pages, health, metrics and STOW-RS. The only importer of the web packages.

server      sockets, TLS, time limits, and the role `web`
app         routes, and the guard that every request passes: host, origin, access, headers of every answer
context     what the handlers of requests share
forwarding  requests through a reverse proxy: real client, host and path
access      token, the limit on wrong tokens, who a client is, rules for the section `web`
sessions    users, roles and browser sessions; login: by token and at a provider, and logout
oidc        the OpenID Connect provider; attempts: logins there that are under way
pages       HTML pages; actions: forms that change something; render: templates and plots; pictures: views as PNG
monitoring  /health and /metrics
stow        STOW-RS (PS3.18 section 10.5) and its multipart body

A new page is a handler in `pages`, a template in `templates/` and a route in `app`.
"""
