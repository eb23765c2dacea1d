"""GLSL 1.20 of the glyphs: what every OpenGL 2.1 with instancing and float textures runs.

One instance is one voxel, one vertex is one direction of the template sphere. Its radius and
gradient come from a texture filled by one matrix product on the CPU (``SAMPLE_STORED``), or are
summed from the coefficients here (``SAMPLE_SUMMED``), which suits a graphics card.
"""

from __future__ import annotations

__all__ = ["FRAGMENT", "KEEP_ALL", "KEEP_OUTLINE", "SAMPLE_STORED", "SAMPLE_SUMMED", "VERTEX"]

VERTEX = """
uniform mat3 u_place;      // RAS millimetres to the node's coordinates
uniform mat3 u_normal;     // RAS to right, up, towards the eye
uniform vec3 u_behind;     // pushes the glyphs of a 2D view just behind its plane
uniform float u_negative;  // 1 draws negative lobes, 0 hides them
uniform vec2 u_thicken;    // millimetres by which small glyphs are thickened, pixels a millimetre
attribute vec3 a_direction;
attribute vec4 a_vertex;   // row of its radius, side of the sphere, place in the basis texture
attribute vec3 a_centre;   // per glyph from here on
attribute vec3 a_glyph;    // place in the texture (x, y), millimetres per unit of amplitude
attribute vec4 a_colour;   // its own colour; alpha says how much of it
varying vec3 v_direction;
varying vec3 v_normal;
varying vec4 v_colour;
varying float v_radius;

void main() {
    vec4 s = $sample(a_glyph.xy, a_vertex);
    float side = a_vertex.y;
    float r = s.x;
    float size = r < 0.0 ? -r * u_negative : r;
    float turn = r < 0.0 ? -1.0 : 1.0;
    vec3 slope = (r * a_direction - side * s.yzw) * a_glyph.z;
    v_normal = u_normal * (turn * slope);
    v_direction = a_direction * (size * a_glyph.z + 1e-6);
    v_colour = a_colour;
    v_radius = (r < 0.0 ? u_negative * r : r) * a_glyph.z;
    // a negative lobe that is hidden, or thinner than the thickening, is the foot of positive ones
    float foot = r * a_glyph.z * u_negative > -u_thicken.x ? 1.0 : -1.0;
    vec3 thick = slope * (foot * u_thicken.x * u_thicken.y / (length(slope) * u_thicken.y + 0.5));
    vec3 p = a_centre + u_place * (size * a_glyph.z * a_direction + thick) + u_behind;
    gl_Position = $transform(vec4(p, 1.0));
}
"""

SAMPLE_STORED = """
vec4 sample_stored(vec2 glyph, vec4 vertex) {
    vec2 at = vec2(glyph.x + vertex.x + 0.5, glyph.y + 0.5) / $size;
    return texture2DLod($radii, at, 0.0);
}
"""

SAMPLE_SUMMED = """
vec4 sample_summed(vec2 glyph, vec4 vertex) {
    vec4 s = vec4(0.0);
    vec2 coefficient = vec2(glyph.x + 0.5, glyph.y + 0.5);
    vec2 basis = vec2(vertex.z + 0.5, vertex.w + 0.5);
    for (float k = 0.0; k < $groups; k += 1.0) {
        vec4 c = texture2DLod($coefficients, coefficient / $size, 0.0);
        s += c.x * texture2DLod($basis, basis / $basis_size, 0.0);
        s += c.y * texture2DLod($basis, (basis + vec2(1.0, 0.0)) / $basis_size, 0.0);
        s += c.z * texture2DLod($basis, (basis + vec2(2.0, 0.0)) / $basis_size, 0.0);
        s += c.w * texture2DLod($basis, (basis + vec2(3.0, 0.0)) / $basis_size, 0.0);
        coefficient.x += 1.0;
        basis.x += 4.0;
    }
    return s;
}
"""

KEEP_ALL = """
void keep_all(vec3 normal) {}
"""

# near the outline of a smooth body, normal.z grows as the root of the distance d from it, so that
# normal.z over its slope is 2 d
KEEP_OUTLINE = """
void keep_outline(vec3 normal) {
    float slope = length(vec2(dFdx(normal.z), dFdy(normal.z)));
    if (normal.z > 2.0 * $width * slope) discard;
}
"""

FRAGMENT = """
uniform float u_lighting;   // 0 flat, 1 full
uniform float u_ramp_on;    // 1 colours by amplitude
uniform float u_ramp_top;   // radius in millimetres at the end of the ramp
uniform sampler2D u_ramp;
uniform vec3 u_negative_colour;
varying vec3 v_direction;
varying vec3 v_normal;
varying vec4 v_colour;
varying float v_radius;

void main() {
    vec3 colour = abs(normalize(v_direction));
    if (u_ramp_on > 0.5) {
        float t = clamp(abs(v_radius) / u_ramp_top, 0.0, 1.0);
        colour = texture2D(u_ramp, vec2((t * 255.0 + 0.5) / 256.0, 0.5)).rgb;
    }
    colour = mix(colour, v_colour.rgb, v_colour.a);
    if (v_radius < 0.0) colour = u_negative_colour;
    vec3 n = normalize(v_normal + vec3(0.0, 0.0, 1e-20));
    $keep(n);
    float head = max(dot(n, vec3(-0.259, 0.324, 0.910)), 0.0);
    float shine = pow(max(dot(n, vec3(-0.133, 0.166, 0.977)), 0.0), 40.0);
    vec3 lit = colour * (0.45 + 0.62 * head) + vec3(0.14 * shine);
    gl_FragColor = vec4(mix(colour, clamp(lit, 0.0, 1.0), u_lighting), 1.0);
}
"""
