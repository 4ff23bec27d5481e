// Writes a TrackArray in the wire format of Fast DDS through the installed headers and type support.
//
//   track_array OUT      fills one and writes it
//   track_array IN OUT   reads one and writes it again
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "fastcdr/Cdr.h"
#include "fastcdr/FastBuffer.h"
#include "rosidl_runtime_c/message_type_support_struct.h"
#include "rosidl_typesupport_cpp/message_type_support.hpp"
#include "rosidl_typesupport_fastrtps_cpp/identifier.hpp"
#include "rosidl_typesupport_fastrtps_cpp/message_type_support.h"
#include "sam2_ros/msg/track_array.hpp"

using eprosima::fastcdr::Cdr;
using eprosima::fastcdr::CdrVersion;
using eprosima::fastcdr::FastBuffer;
using sam2_ros::msg::Track;
using sam2_ros::msg::TrackArray;

const message_type_support_callbacks_t & callbacks()
{
  const auto * dispatch = rosidl_typesupport_cpp::get_message_type_support_handle<TrackArray>();
  const auto * found = get_message_typesupport_handle(
    dispatch, rosidl_typesupport_fastrtps_cpp::typesupport_identifier);
  if (!found) {
    throw std::runtime_error("sam2_ros has no type support for Fast DDS");
  }
  return *static_cast<const message_type_support_callbacks_t *>(found->data);
}

TrackArray read(const std::string & path)
{
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  FastBuffer buffer(bytes.data(), bytes.size());
  Cdr cdr(buffer, Cdr::DEFAULT_ENDIAN, CdrVersion::XCDRv1);
  cdr.read_encapsulation();
  TrackArray message;
  if (!callbacks().cdr_deserialize(cdr, &message)) {
    throw std::runtime_error(path + " holds no TrackArray");
  }
  return message;
}

void write(const TrackArray & message, const std::string & path)
{
  FastBuffer buffer;
  Cdr cdr(buffer, Cdr::DEFAULT_ENDIAN, CdrVersion::XCDRv1);
  cdr.set_encoding_flag(eprosima::fastcdr::EncodingAlgorithmFlag::PLAIN_CDR);
  cdr.serialize_encapsulation();
  if (!callbacks().cdr_serialize(&message, cdr)) {
    throw std::runtime_error("a TrackArray cannot be written");
  }
  std::ofstream(path, std::ios::binary).write(buffer.getBuffer(), cdr.get_serialized_data_length());
}

// Two objects, every field with a value of its own; test_interfaces.py expects these.
TrackArray example()
{
  TrackArray message;
  message.header.stamp.sec = 12;
  message.header.stamp.nanosec = 345;
  message.header.frame_id = "camera_optical";

  Track cup;
  cup.object_id = "cup";
  cup.class_name = "crockery";
  cup.label = 7;
  cup.state = Track::VISIBLE;
  cup.object_score = 4.5f;
  cup.presence = 0.75f;
  cup.predicted_iou = 0.5f;
  cup.box.x_offset = 10;
  cup.box.y_offset = 20;
  cup.box.width = 3;
  cup.box.height = 2;
  cup.centroid_x = 11.5f;
  cup.centroid_y = 20.25f;
  cup.area = 4;
  cup.last_seen = message.header.stamp;
  cup.mask.image_width = 640;
  cup.mask.image_height = 480;
  cup.mask.x = 10;
  cup.mask.y = 20;
  cup.mask.width = 3;
  cup.mask.height = 2;
  cup.mask.counts = {0, 3, 1, 1, 1};

  Track ball;
  ball.object_id = "ball";
  ball.label = 254;
  ball.state = Track::LOST;
  ball.object_score = -8.0f;
  ball.last_seen.sec = 1;
  ball.frames_since_seen = 330;

  message.tracks = {cup, ball};
  return message;
}

int main(int argc, char ** argv)
{
  try {
    if (argc == 2) {
      write(example(), argv[1]);
    } else if (argc == 3) {
      write(read(argv[1]), argv[2]);
    } else {
      throw std::runtime_error("usage: track_array [IN] OUT");
    }
  } catch (const std::exception & error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
