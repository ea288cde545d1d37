// oidc-provider with the settings of its only argument, JSON: port, clients, groups by user, claims_in_id_token.
// Its login form takes every name with any password. Prints a line when it listens.
import { Provider } from "oidc-provider";

const asked = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${asked.port}`;
const provider = new Provider(issuer, {
  clients: asked.clients,
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
  conformIdTokenClaims: !asked.claims_in_id_token,
  scopes: ["openid", "profile"],
  features: { rpInitiatedLogout: { enabled: true } },
  pkce: { required: () => true },
  findAccount: (context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: `${id}@clinic`, groups: asked.groups[id] ?? [] }),
  }),
});
provider.listen(asked.port, "127.0.0.1", () => console.log("listening"));
