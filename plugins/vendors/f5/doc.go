// Package f5 puts a deployment onto an F5 BIG-IP: IKEv2, SSTP, RADIUS, and other TCP
// and UDP.
//
// What is served is one AS3 declaration of one tenant, which is a partition of the
// BIG-IP that belongs to the driver alone: AS3 makes it so wholly or not at all, and
// touches no other tenant. Plan has AS3 try it first (controls.dryRun). Drains and
// statistics go by iControl REST, which also tells whether somebody altered the
// objects behind AS3's back. What the driver must know of a deployment that it
// applied is among the tenant's constants.
//
// The page docs/f5.md says what becomes of what.
package f5
