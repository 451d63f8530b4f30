// Package npscert is about the certificates of NPS servers behind one name.
//
// A Windows client that uses PEAP or EAP-TLS looks at the certificate of the NPS
// server that it happens to get. Behind a balancer that is now one and now
// another, and the client's profile names one server name and one trusted root.
// So each server's certificate must satisfy the same profile: Subject the name of
// the cluster, the cluster and the server itself among the alternative names,
// made for server authentication, RSA of 2048 bits or more, SHA-256, from the same
// root. A client that meets a server where it isn't so fails, and its user sees
// nothing more than that the connection failed.
//
//   - [Request] makes what is needed to ask for such a certificate: an INF file
//     for certreq, a PKCS #10 request, or PowerShell that does it on the server.
//   - [Template] makes PowerShell that adds a certificate template to AD CS.
//   - [Check] fetches the certificates of all servers and judges them.
package npscert
