package config

import "encoding/json"

// Schema is the JSON Schema (draft 7) of the file, for editors: `# yaml-language-server: $schema=nearzone.schema.json`.
// It comes from the same tables that Load reads by. It knows no reference and no bound that takes more than one
// key to see; those are Load's.
func Schema() []byte {
	root := Default().shape().schema()
	root["definitions"] = object{"overlay": overlaySchema()}
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "Nearzone"
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("config: schema is no JSON: " + err.Error()) // it is made of strings, numbers and lists
	}
	return append(b, '\n')
}

// overlaySchema is the file's own schema as zones.ZONE.set has it: nothing is required, null takes a key away, and
// what every node must agree on is left out.
func overlaySchema() object {
	s := relaxed(Default().shape().schema()).(object)
	properties := s["properties"].(object)
	delete(properties, "zones")
	delete(properties, "home")
	return s
}

// relaxed is a copy of a schema in which every key may be left out or null.
func relaxed(v any) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for k, x := range v {
			out[k] = relaxed(x)
		}
		if properties, ok := out["properties"].(object); ok {
			delete(out, "required")
			for k, p := range properties {
				properties[k] = object{"anyOf": []object{{"type": "null"}, p.(object)}}
			}
		}
		return out
	case []object:
		out := make([]object, len(v))
		for i, x := range v {
			out[i] = relaxed(x).(object)
		}
		return out
	}
	return v
}
