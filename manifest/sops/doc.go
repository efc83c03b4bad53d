// Package sops decrypts manifests that SOPS has encrypted for age. It is between the files of a source and the parser: it replaces
// the encrypted values in the parsed trees, where they keep their lines and columns.
//
// It reads SOPS' file format with its own code, because each package of SOPS that reads it imports the SDKs of all cloud key services.
// A value is AES-256-GCM with the path of its keys as additional data. The data key is encrypted for each recipient. A MAC over all
// values, in order, shows that none was added, removed or moved.
//
// Invariants: no error contains a plaintext, a key or a ciphertext. A file is decrypted as a whole, with a correct MAC, or not at all.
package sops
