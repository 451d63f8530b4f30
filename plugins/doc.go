// Package plugins holds the vendor-neutral model of a deployment, and the
// contract of the drivers that put it into effect.
//
// A [Deployment] says what must hold: which gateways serve, which ports agree
// where a client lives, how a gateway proves that it serves. It says nothing
// about how. A [Driver] makes it so on one balancer: the built-in one serves it
// in this process, others configure a vendor's box. What a driver can't do it
// says, as a [Diagnostic]; it never drops an intent in silence.
//
//	file ──decode──▶ Deployment ──Validate──▶ Driver.Plan ──▶ Driver.Apply
//	                                             │                 │
//	                                         Diagnostic        Driver.Read, Stats, Watch
//
// The package imports nothing beyond the standard library and decodes no file.
// Its structs carry json tags, which are the names used in files and in paths
// such as sites[0].groups[1].listeners[0].address.
//
// # Secrets
//
// A Deployment holds no secret. It refers to one by a file or an environment
// variable; see [Secret]. So a Deployment may be shown, logged and compared.
package plugins
