// Package certs obtains and renews the certificates of public hosts from a certificate authority with ACME. It is a step
// beside the life of a project: watch -> decide -> check DNS -> order -> API. The server sends the certificates to the agents.
//
// Invariants:
//
//   - Nothing is ordered for a host that does not lead to the cluster, unless the operator turned that check off. A wrong DNS
//     record costs no order and no failed validation.
//   - The authority is asked to validate a host only after the agents have confirmed that they answer its challenge.
//   - A failing host never delays another one: each host has its own backoff, which is stored and survives a restart. All
//     hosts together stay below a number of orders per time that is stored in the same way.
//   - A certificate is used until its end. A failed renewal, another authority or a project that leaves its host removes no
//     certificate that is still valid.
//   - Each decision is made from the stored state just before it is carried out. Each write names the revision that it
//     replaces, so a late write of a former leader is refused.
package certs
