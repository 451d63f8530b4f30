// Package ownfile is for drivers that own a file which a program of this machine loads.
// Such a file begins with a mark, and holds in comments what the driver must know of it,
// a memory, so that the driver keeps nothing elsewhere.
package ownfile
