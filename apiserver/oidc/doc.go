// Package oidc logs people in with an OpenID Connect provider. It has no part in the processing of a push: it says who a
// person is and what the person may do, before the page and caractrl call the API as that person.
//
// The server is the only client of the provider. The page and caractrl hold a session of Cara and never a token of the
// provider. The alternative was to accept ID tokens at the API: such a token cannot be revoked, every program that holds it
// could be the client, and caractrl would need the provider's address, its authority and perhaps a client secret.
//
// Invariants:
//
//   - Decide and PersonOf decide from claims alone. The groups of a session are kept and Decide is asked for each call, so a
//     changed --oidc-role-map applies to sessions that exist.
//   - An ID token counts only if its signature, issuer, audience and expiry are right, and in the code flow its nonce.
//   - What a login needs on its way through the browser is sealed with the cluster's key and ends after LoginTime.
//     The server keeps no record of logins that nobody completes.
//   - Each request to the provider has a deadline and a bound on the answer. While the provider is down, a failure is
//     remembered for a while, which doubles up to maxPause, so that callers neither wait nor hammer it.
//   - No error and no log line has a token, a code or a secret. Texts of the provider are truncated and cleaned.
package oidc
