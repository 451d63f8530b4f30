// Package f5 stands in for a BIG-IP in tests: AS3, and what of iControl REST a driver
// needs. It keeps what it is told, refuses what it doesn't know, and has the ways of a
// real one: AS3 works on a declaration for a while and is busy meanwhile, tokens
// expire, secrets come back encrypted, statistics count bits. Of BIG-IP DNS it has what
// AS3 declares: servers and data centres in /Common/Shared only, and tenants that are
// taken while others fail.
package f5
