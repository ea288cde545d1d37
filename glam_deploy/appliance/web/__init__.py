"""The appliance's HTTP side: status pages, health, metrics and STOW-RS. The only importer of the web's packages.

server    sockets, TLS, and the role's life
app       routes -> one ASGI application around a `Site`
guard     every request passes: host, origin, token, and the headers of every answer
access    who may come in: token, sessions, the limit on wrong tokens
pages     HTML;  actions: the forms that change something;  pictures, plots: what they show
health, metrics
stow      PS3.18 section 10.5;  multipart: its body, part by part
"""
