// Package validate checks objects: the constraints of the proto files, the rules that involve several fields, and the policies that
// a platform may set. It is pure: it knows no stored object and no node.
package validate
