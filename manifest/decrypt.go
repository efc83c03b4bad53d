package manifest

import (
	"iter"

	"go.yaml.in/yaml/v3"

	"github.com/caravanserai/cara/manifest/sops"
)

// SOPSField is the field of problems about the encryption of a file.
const SOPSField = "sops"

const sopsAdvice = "the file is encrypted by SOPS: a source needs spec.decryption.secretRef, the name of a Secret with the age key; for caractrl, run `sops decrypt FILE | caractrl apply -f -`"

// decrypted returns the documents of a file, decrypted if the first one has a sops block. The MAC of SOPS covers all documents, so
// it needs all of them at once.
func (p *parser) decrypted(roots iter.Seq[*yaml.Node], keys *sops.Keys) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) {
		var all []*yaml.Node
		for root := range roots {
			switch block := sops.Find(root); {
			case p.encrypted:
				all = append(all, root)
			case block != nil && keys == nil:
				p.problem(block, SOPSField, sopsAdvice)
				p.stopped = true
				return
			case block != nil:
				all, p.encrypted, p.vars = append(all, root), true, nil
			case !yield(root):
				return
			}
		}
		if !p.encrypted || len(p.problems) > 0 || !p.decrypt(all, keys) {
			return
		}
		for _, root := range all {
			if !yield(root) {
				return
			}
		}
	}
}

func (p *parser) decrypt(roots []*yaml.Node, keys *sops.Keys) bool {
	for _, root := range roots {
		if !p.bound(root, 1) {
			return false
		}
	}
	p.aliases = 0 // header counts again
	if err := keys.Decrypt(roots); err != nil {
		p.problemAt(err.Line, err.Column, SOPSField, err.Message)
		return false
	}
	return true
}
