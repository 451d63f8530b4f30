// Package kemp is a fake Kemp LoadMaster for tests: its management API, version 1
// in XML and version 2 in JSON, over a state that is kept in memory.
//
// It is strict: a parameter that a command hasn't is refused, as is a value out of its
// range. It has the habits of the real one that a driver trips over: booleans go in as
// 0 and 1 and come out as Y and N in XML and as true and false in JSON; indexes change
// when a virtual service goes; nothing is transactional, so that what is before a
// wrong parameter is kept; everything is saved at once; the times of checks are global;
// servers of UDP are only pinged; ports are texts in one place and numbers in another.
// Its GEO says names with a dot at their end, takes the time to live of a name only with
// its own settings turned on, and is told of a check's address by a command of its own.
package kemp
