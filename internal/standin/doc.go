// Package standin holds stand-ins for the two ends of Always On VPN: gateways
// and clients for IKEv2 and SSTP, a RADIUS server and a RADIUS client. They
// speak the protocols truly, run inside a Go program, and need neither root nor
// a kernel with IPsec, so the demo and the tests can balance real traffic
// anywhere.
//
// # What is real
//
//   - IKEv2: the SA is chosen from the client's offer, keys come from a real
//     key exchange (RFC 7296 section 2.14), messages are encrypted with
//     AES-GCM or AES-CBC and HMAC, both sides prove a shared key, and ESP
//     packets (RFC 4303, AES-GCM as in RFC 4106) travel in UDP (RFC 3948) under
//     the keys of that exchange. So an answer proves which gateway gave it.
//     Cookies, INVALID_KE_PAYLOAD, NO_PROPOSAL_CHOSEN, fragments (RFC 7383),
//     IKE SA rekeying and moving to another address (RFC 4555) work.
//   - SSTP: TLS or plain HTTP, the long-lived POST, the call's set-up with its
//     crypto binding, naks, aborts, echo, timers and data frames (MS-SSTP), and
//     in it PPP with LCP, MS-CHAPv2 and IPCP, whose keys the binding takes. A
//     gateway can be told to be wrong in the ways that real ones are.
//   - RADIUS: passwords hidden with the secret, Message-Authenticator,
//     conversations of several rounds held together by State, accounting.
//
// # What is not
//
//   - What travels in ESP is not IP but a numbered message that is sent back
//     with the gateway's name.
//   - No child SA is rekeyed, and there are no certificates or EAP within IKE.
//   - Unless its gateway has passwords, a client of SSTP doesn't log in: it
//     names itself by an LCP Identification (RFC 1570) and measures with LCP
//     Echo. The key of its crypto binding is then the one that the specification
//     prescribes when PPP authenticated nobody: all zero.
//   - The EAP method is made up: it has rounds and a proof, but no TLS.
//
// # Books
//
// Every server keeps books of whom it served, what it could not make sense of,
// and when ([Session], [IKECounts], [NPSCounts]). They stay when it is killed, so
// that whether a balancer kept its promises can be told from what the servers saw,
// without believing a number of the balancer's own.
package standin
